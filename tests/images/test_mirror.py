"""The Debian mirror of a machine, from its source lists."""

from pathlib import Path

import pytest

from harness.errors import ConfigError, ImageError
from harness.images.mirror import (
    Source,
    choose,
    machine_mirror,
    parse_deb822,
    parse_one_line,
)

DEB822 = """\
Types: deb deb-src
# a remark
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://vendor.example/apt
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQENB
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
http://mirror.example/debian/ bookworm main contrib # mine
deb-src http://mirror.example/debian bookworm main
deb https://vendor.example/repo stable main
deb cdrom:[Debian]/ bookworm main
"""


def test_stanzas_give_one_source_per_address() -> None:
    found = parse_deb822(DEB822)

    assert [source.uri for source in found] == [
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
        "https://vendor.example/apt",
    ]
    assert found[0].suites == ("bookworm", "bookworm-updates")


def test_one_line_entries_give_options_and_leave_out_sources() -> None:
    found = parse_one_line(ONE_LINE)

    assert found[0] == Source(
        "http://mirror.example/debian/",
        ("bookworm",),
        ("main", "contrib"),
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    )
    assert len(found) == 3


@pytest.mark.parametrize("text", [DEB822, ONE_LINE])
def test_the_main_archive_is_chosen_before_security_vendors_and_disks(text: str) -> None:
    sources = parse_deb822(text) if "Types" in text else parse_one_line(text)

    chosen = choose(sources, "bookworm")

    assert chosen is not None
    assert chosen.uri.rstrip("/") == "http://mirror.example/debian"


def test_release_files_that_say_debian_decide_when_there_are_any() -> None:
    sources = [
        Source("http://corp.example/apt/mirror", ("bookworm",), ("main",)),
        Source("http://vendor.example/debian", ("bookworm",), ("main",)),
    ]

    chosen = choose(sources, "bookworm", frozenset({"http://corp.example/apt/mirror"}))

    assert chosen == sources[0]


def test_a_machine_of_another_distribution_has_no_mirror(tmp_path: Path) -> None:
    lists = tmp_path / "etc/apt/sources.list"
    lists.parent.mkdir(parents=True)
    lists.write_text("deb http://archive.example/ubuntu noble main\n")

    with pytest.raises(ImageError, match="TRAPLINE_MIRROR"):
        machine_mirror(tmp_path)


def test_the_sources_of_a_machine_give_address_and_keyring(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    keyring = tmp_path / "usr/share/keyrings/debian-archive-keyring.gpg"
    keyring.parent.mkdir(parents=True)
    keyring.write_bytes(b"key")

    mirror = machine_mirror(tmp_path)

    assert (mirror.uri, mirror.keyring) == ("http://mirror.example/debian", keyring)


def test_variables_override_the_source_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = tmp_path / "ours.gpg"
    keyring.write_bytes(b"key")
    monkeypatch.setenv("TRAPLINE_MIRROR", "http://ours.example/debian/")
    monkeypatch.setenv("TRAPLINE_KEYRING", str(keyring))

    mirror = machine_mirror()

    assert (mirror.uri, mirror.keyring) == ("http://ours.example/debian", keyring)


def test_an_unsigned_mirror_must_be_in_the_file_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    monkeypatch.setenv("TRAPLINE_MIRROR", "http://ours.example/debian")

    with pytest.raises(ConfigError, match="only for a mirror in the file system"):
        machine_mirror()
