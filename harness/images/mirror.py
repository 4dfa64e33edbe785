"""Which Debian mirror this machine uses, read from its own apt configuration."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, ImageError
from harness.images.tools import tool_environment

KEYRINGS = (
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
)
"""Where the package debian-archive-keyring has the keys of the archive, below the root."""

UNSIGNED = "none"
"""Value of ``$TRAPLINE_KEYRING`` that trusts an unsigned mirror in the file system."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A Debian archive: where it is and whose signature it must carry."""

    uri: str
    keyring: Path | None = None
    """None: the keys apt trusts anyway."""
    trusted: bool = False
    """Take it without a signature (only for a directory of this machine)."""


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of an apt source list."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def machine_mirror(root: Path = Path("/")) -> Mirror:
    """Return the mirror of the main Debian archive that this machine uses.

    ``$TRAPLINE_MIRROR`` and ``$TRAPLINE_KEYRING`` override what apt's source lists say.

    :raise ImageError: no source list of this machine names a Debian archive.
    """
    keyring = _keyring(os.environ.get("TRAPLINE_KEYRING", ""), root)
    uri = os.environ.get("TRAPLINE_MIRROR", "")
    if not uri:
        source = choose(read_sources(root), _codename(root), _debian_uris(root))
        if source is None:
            raise ImageError(
                "no mirror of the Debian archive is known",
                seen=f"no entry of {root / 'etc/apt/sources.list'} or sources.list.d is one",
                hint="set TRAPLINE_MIRROR to the address of a mirror, TRAPLINE_KEYRING to its "
                "keys (package debian-archive-keyring)",
            )
        uri = source.uri
        keyring = keyring or _keyring(source.signed_by, root)
    keyring = keyring or next((root / k for k in KEYRINGS if (root / k).is_file()), None)
    trusted = os.environ.get("TRAPLINE_KEYRING") == UNSIGNED
    if trusted and not uri.startswith(("file:", "copy:")):
        raise ConfigError(
            f"TRAPLINE_KEYRING={UNSIGNED} is only for a mirror in the file system",
            seen=f"the mirror is {uri}",
            hint="give the keyring that signs it",
        )
    return Mirror(uri.rstrip("/"), None if trusted else keyring, trusted)


def choose(
    sources: Iterable[Source], codename: str, debian: frozenset[str] = frozenset()
) -> Source | None:
    """Return the entry that is the main Debian archive, or None.

    :param codename: of the machine's own release; an entry that has it comes first.
    :param debian: addresses known (from their release files) to be the Debian archive; empty
        when apt has no lists, then the name of the keyring and of the directory decide.
    """

    def rank(source: Source) -> tuple[bool, bool, bool, bool]:
        return (
            source.uri.rstrip("/") in debian,
            codename in source.suites,
            "debian-archive" in source.signed_by,
            source.uri.rstrip("/").endswith("/debian"),
        )

    fit = [s for s in sources if _is_main(s)]
    if debian:
        fit = [s for s in fit if s.uri.rstrip("/") in debian]
    else:
        fit = [s for s in fit if any(rank(s)[2:])]
    return max(fit, key=rank, default=None)


def read_sources(root: Path = Path("/")) -> list[Source]:
    """Read every enabled binary entry of the machine's apt source lists."""
    apt = root / "etc/apt"
    found: list[Source] = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            found += parse_deb822(text)
        elif path.suffix == ".list":
            found += parse_one_line(text)
    return found


def parse_one_line(text: str) -> list[Source]:
    """Parse the classic format: ``deb [options] uri suite component…`` (sources.list(5))."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)((?:\s+[^#\s]\S*)*)", line)
        if not match:
            continue
        options = dict(o.split("=", 1) for o in (match[1] or "").split() if "=" in o)
        found.append(
            Source(
                match[2],
                (match[3],),
                tuple(match[4].split()),
                options.get("signed-by", ""),
            )
        )
    return found


def parse_deb822(text: str) -> list[Source]:
    """Parse the stanza format (sources.list(5), deb822-style)."""
    found = []
    for fields in _stanzas(text):
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").strip().lower() in ("no", "false", "0", "off"):
            continue
        suites = tuple(fields.get("suites", "").split())
        components = tuple(fields.get("components", "").split())
        signed_by = fields.get("signed-by", "").strip()
        found += [
            Source(uri, suites, components, signed_by) for uri in fields.get("uris", "").split()
        ]
    return found


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0].isspace():
            if name:
                fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.lower()
            fields[name] = value.strip()


def _is_main(source: Source) -> bool:
    if "main" not in source.components or source.uri.startswith("cdrom:"):
        return False
    return not all("security" in suite or "/" in suite for suite in source.suites)


def _keyring(named: str, root: Path) -> Path | None:
    """Return the keyring file; a key block inside the source list is not a file."""
    if not named or named == UNSIGNED or not named.startswith("/"):
        return None
    path = root / named.split(",")[0].strip().lstrip("/")
    return path if path.is_file() else None


def _codename(root: Path) -> str:
    try:
        text = (root / "etc/os-release").read_text()
    except OSError:
        return ""
    match = re.search(r'^VERSION_CODENAME="?([\w-]+)', text, re.MULTILINE)
    return match[1] if match else ""


def _debian_uris(root: Path) -> frozenset[str]:
    """Return the addresses whose release files (as apt has them) say Origin and Label Debian."""
    if root != Path("/"):
        return frozenset()
    argv = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=tool_environment())
    except OSError:
        return frozenset()
    rows = (line.split("|") for line in done.stdout.splitlines())
    return frozenset(
        row[2].rstrip("/") for row in rows if len(row) == 3 and row[:2] == ["Debian", "Debian"]
    )
