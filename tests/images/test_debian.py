"""apt in its private root, against an archive made by hand; no network."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ImageError, MissingPackage
from harness.images.debian import DebianSuite, Package, parse_print_uris, unpack
from harness.images.mirror import Mirror


def names(packages: list[Package]) -> list[str]:
    return [one.name for one in packages]


def test_packages_come_with_all_they_depend_on(archive: Any) -> None:
    fetched = DebianSuite("trixie", archive.mirror).fetch(["app"])

    assert names(fetched) == ["app", "library", "perl", "setup"]
    assert fetched[1].version == "2:1.5-1"
    assert all(one.path.is_file() for one in fetched)


def test_assumed_packages_and_what_only_they_need_stay_away(archive: Any) -> None:
    fetched = DebianSuite("trixie", archive.mirror, assume=["setup"]).fetch(["app"])

    assert names(fetched) == ["app", "library"]


def test_a_package_taken_alone_brings_nothing_along(archive: Any) -> None:
    archive.add("server", "4", depends="app (= 1.0), perl")

    fetched = DebianSuite("trixie", archive.mirror).fetch(["library"], alone=["server"])

    assert names(fetched) == ["library", "server"]


def test_a_backports_suite_is_preferred_and_its_base_fills_the_gaps(archive: Any) -> None:
    archive.add("app", "2.0~bpo13+1", depends="library", suite="trixie-backports")

    fetched = DebianSuite("trixie-backports", archive.mirror).fetch(["app"])

    assert [(one.name, one.version) for one in fetched] == [
        ("app", "2.0~bpo13+1"),
        ("library", "2:1.5-1"),
    ]


def test_a_package_that_the_mirror_lacks_is_named(archive: Any) -> None:
    with pytest.raises(ImageError, match="no such package") as caught:
        DebianSuite("trixie", archive.mirror).fetch(["nosuch"])

    assert "nosuch" in caught.value.seen
    assert "TRAPLINE_MIRROR" in caught.value.hint


def test_a_suite_that_the_mirror_lacks_is_named(archive: Any) -> None:
    with pytest.raises(ImageError, match="nosuite"):
        DebianSuite("nosuite", archive.mirror).fetch(["app"])


def test_without_network_and_lists_the_error_says_what_to_do(archive: Any) -> None:
    nowhere = Mirror("http://127.0.0.1:1/debian", trusted=True)

    with pytest.raises(ImageError, match="cannot be reached") as caught:
        DebianSuite("trixie", nowhere).fetch(["app"])

    assert "network" in caught.value.hint


def test_old_lists_do_when_there_is_no_network(
    archive: Any, old_lists: Any, caplog: pytest.LogCaptureFixture
) -> None:
    suite = DebianSuite("trixie", archive.mirror)
    before = suite.fetch(["app"])
    archive.root.rename(archive.root.with_name("gone"))
    old_lists()

    after = suite.fetch(["app"])

    assert after == before
    assert "using lists of" in caplog.text


def test_an_unsigned_mirror_is_refused_unless_trusted(archive: Any) -> None:
    suspicious = Mirror(archive.mirror.uri)

    with pytest.raises(ImageError) as caught:
        DebianSuite("trixie", suspicious).fetch(["app"])

    assert "signed" in str(caught.value)


def test_a_damaged_download_is_noticed_and_fetched_again(archive: Any) -> None:
    suite = DebianSuite("trixie", archive.mirror)
    path = suite.fetch(["perl"])[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"X")

    again = suite.fetch(["perl"])

    assert again[0].path.read_bytes() == whole


def test_a_mirror_that_moved_on_has_its_lists_read_again(archive: Any) -> None:
    suite = DebianSuite("trixie", archive.mirror)
    suite.resolve(["perl"])
    (archive.root / "pool/perl_5_amd64.deb").unlink()
    archive.add("perl", "6")

    fetched = suite.fetch(["perl"])

    assert fetched[0].version == "6"


def test_a_full_disk_is_said_to_be_one(archive: Any, fake_program: Any) -> None:
    fake_program(
        "apt-get", "echo 'E: Write error - write (28: No space left on device)' >&2; exit 100"
    )

    with pytest.raises(ImageError, match="the disk is full") as caught:
        DebianSuite("trixie", archive.mirror).fetch(["app"])

    assert "images rm" in caught.value.hint


def test_a_machine_without_apt_gets_the_package_named(
    archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.images.tools._SYSTEM_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(MissingPackage) as caught:
        DebianSuite("trixie", archive.mirror).fetch(["app"])

    assert caught.value.packages == ("apt",)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges, as mirrors do, and remembers which were asked for."""

    ranges: list[str]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        self.ranges.append(asked)
        data = path.read_bytes()
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(archive: Any) -> Iterator[tuple[Mirror, list[str]]]:
    ranges: list[str] = []
    handler = type("Handler", (_Handler,), {"ranges": ranges})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: handler(*a, directory=str(archive.root))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Mirror(f"http://127.0.0.1:{server.server_address[1]}", trusted=True), ranges
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_was_cut_short_goes_on_where_it_ended(
    archive: Any, served: tuple[Mirror, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    big = archive.add("big", files={"usr/share/big": "0123456789abcdef" * 10_000})
    mirror, ranges = served
    suite = DebianSuite("trixie", mirror)
    suite.resolve(["big"])
    partial = suite.archives / "partial" / big.name
    partial.write_bytes(big.read_bytes()[:50_000])

    fetched = suite.fetch(["big"])

    assert fetched[0].path.read_bytes() == big.read_bytes()
    assert any(asked.startswith("bytes=50000") for asked in ranges), ranges


def test_downloads_report_their_progress(archive: Any, served: tuple[Mirror, Any]) -> None:
    told: list[tuple[str, float]] = []
    suite = DebianSuite("trixie", served[0], progress=lambda what, done: told.append((what, done)))

    suite.fetch(["app"])

    assert told
    assert all(0 <= done <= 100 for _, done in told)


def test_unpacking_merges_usr_whatever_a_package_ships(archive: Any, tmp_path: Path) -> None:
    archive.add("old", files={"bin/tool": "x", "lib/x86_64-linux-gnu/libold.so": "y"})
    fetched = DebianSuite("trixie", archive.mirror).fetch(["old"])

    unpack(fetched, tmp_path / "root")

    assert (tmp_path / "root/bin").is_symlink()
    assert (tmp_path / "root/usr/bin/tool").read_text() == "x"
    assert (tmp_path / "root/usr/lib/x86_64-linux-gnu/libold.so").read_text() == "y"


def test_a_damaged_package_cannot_be_unpacked_silently(archive: Any, tmp_path: Path) -> None:
    package = DebianSuite("trixie", archive.mirror).fetch(["perl"])[0]
    package.path.write_bytes(package.path.read_bytes()[:200])

    with pytest.raises(ImageError, match="unpack perl 5"):
        unpack([package], tmp_path / "root")


def test_a_disk_that_fills_while_unpacking_is_said_to_be_full(
    archive: Any, tmp_path: Path, fake_program: Any
) -> None:
    fetched = DebianSuite("trixie", archive.mirror).fetch(["perl"])
    fake_program("tar", "cat > /dev/null; echo 'tar: No space left on device' >&2; exit 2")

    with pytest.raises(ImageError, match="the disk is full"):
        unpack(fetched, tmp_path / "root")


def test_lines_of_print_uris_that_are_no_files_are_passed_over() -> None:
    digest = "ab" * 32
    text = f"""\
Reading package lists...
'http://m.example/pool/libx_1%3a2-1_amd64.deb' libx_1%3a2-1_amd64.deb 99 SHA256:{digest}
"""

    (one,) = parse_print_uris(text)

    assert (one.name, one.version, one.size, one.sha256) == ("libx", "1:2-1", 99, digest)
