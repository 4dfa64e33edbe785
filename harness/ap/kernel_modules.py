"""Kernel modules of an AP host: two sets of them, of which one is loaded.

``group`` has vfio by group and container, ``cdev`` by its own file and iommufd. ``struct
vfio_device`` differs between them, so they are never mixed. The image lists them in order.
"""

from __future__ import annotations

from harness.errors import CommandFailed, HostError
from harness.guest.transport import Transport

SETS = ("group", "cdev")
_LOAD = 'while read -r one; do insmod "$one" || { echo "$one" >&2; exit 1; }; done'


def list_of(name: str) -> str:
    """Return the file that lists the modules of the set *name*, in the order of insmod."""
    return f"/usr/share/trapline/modules-{name}.list"


def modules_of(transport: Transport, name: str) -> tuple[str, ...]:
    """Return the paths of the modules of the set *name*, in the order of insmod.

    :raise HostError: the image has no such set.
    """
    found = tuple(transport.read(list_of(name)).decode().split())
    if not found:
        raise HostError(
            f"the AP host has no modules of the set {name!r}",
            seen=f"{list_of(name)} is empty or not there",
            hint=f"there are {' and '.join(SETS)}; the image says why one is left out",
        )
    return found


def load_set(transport: Transport, name: str, *, timeout: float = 120) -> None:
    """Load the modules of the set *name*.

    :raise HostError: there is no such set, or the kernel refuses one; its words are told.
    """
    modules_of(transport, name)
    try:
        transport.run(f"{_LOAD} < {list_of(name)}", timeout=timeout)
    except CommandFailed as error:
        log = transport.run("dmesg | tail -n 8", check=False).stdout
        raise HostError(
            f"the modules of the set {name!r} cannot be loaded",
            seen=f"{error.stderr.strip()}\n{log.strip()}",
        ) from error


def names_of(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names by which the kernel knows the modules (pure)."""
    files = (path.rpartition("/")[2] for path in paths)
    return tuple(file.partition(".")[0].replace("-", "_") for file in files)
