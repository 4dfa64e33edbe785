"""What a root file system needs beside its packages: users, applets, our own files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness import paths
from harness.images.cache import hash_file
from harness.images.manifest import list_tree
from harness.images.tools import run_tool

BUSYBOX = "usr/bin/busybox"

ETC: Mapping[str, str] = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": "root:x:0:\ntty:x:5:\nkvm:x:104:\nnogroup:x:65534:\n",
    # No password is valid; logging in takes the key of the run.
    "shadow": "root:*:20000:0:99999:7:::\n",
    "shells": "/bin/sh\n/usr/bin/sh\n",
    "hostname": "trapline\n",
    "hosts": "127.0.0.1 localhost trapline\n::1 localhost\n",
    "fstab": "",
}
"""Files that installation scripts would have made."""


def write_etc(root: Path) -> None:
    """Write the users, groups and shells of a root file system."""
    (root / "etc").mkdir(exist_ok=True)
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    (root / "etc/shadow").chmod(0o600)


def make_directories(root: Path, names: Iterable[str]) -> None:
    """Make empty directories; those named ``tmp`` can be written by everyone."""
    for name in names:
        path = root / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod({"tmp": 0o1777, "root": 0o700}.get(path.name, 0o755))


def link_applets(root: Path, busybox: Path) -> None:
    """Link every applet that no package of this root brings to busybox.

    *busybox* is a static program and runs on this machine to list its applets.
    """
    for applet in run_tool([busybox, "--list"], purpose="list the applets of busybox").split():
        if not any(os.path.lexists(root / place / applet) for place in ("usr/bin", "usr/sbin")):
            (root / "usr/bin" / applet).symlink_to("busybox")


def own_files(area: str) -> dict[str, Path]:
    """Return our files for *area* (``host``) by their place below its root."""
    root = paths.recipes_dir() / area
    if not root.is_dir():
        return {}
    return {name: root / name for name in list_tree(root) if not name.endswith("~")}


def hash_own_files(area: str) -> str:
    """Return a text that changes when one of our files for *area* does."""
    return " ".join(f"{name}:{hash_file(path)}" for name, path in own_files(area).items())


def copy_own_files(files: Mapping[str, Path], root: Path) -> None:
    """Copy our files into *root*; scripts become executable, whatever unpacked the checkout."""
    for name, path in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        shutil.copyfile(path, target)
        with path.open("rb") as file:
            script = file.read(2) == b"#!"
        target.chmod(0o755 if script else 0o644)
