"""Which kernel driver has a PCI function, and changing that through sysfs.

``driver_override`` is used, never ``new_id``: it names one function and nothing else
(Documentation/ABI/testing/sysfs-bus-pci).
"""

from __future__ import annotations

from harness.errors import CommandFailed, DeviceBusy, HostError
from harness.guest.system import System
from harness.host.journal import DriverChange, Journal
from harness.model.pci import Bdf
from harness.step import step

_DEVICES = "/sys/bus/pci/devices"

# One shell per change: each process start under emulation costs tens of milliseconds.
_REBIND = """
set -e
d=/sys/bus/pci/devices/{bdf}
echo '{override}' > $d/driver_override
if [ -e $d/driver ]; then echo {bdf} > $d/driver/unbind; fi
if [ -n '{driver}' ]; then echo {bdf} > /sys/bus/pci/drivers_probe; fi
readlink $d/driver || :
"""

_IN_USE = """
d=/sys/bus/pci/devices/{bdf}
for n in $d/net/* $d/virtio*/net/*; do
  [ -e "$n" ] || continue
  ip -o addr show dev ${{n##*/}} 2>/dev/null | grep -q ' inet' || continue
  echo "network ${{n##*/}} has an address"
done
for b in $(find $d/ -maxdepth 8 -type d -path '*/block/*' 2>/dev/null |
           sed 's#.*/block/##;s#/.*##' | sort -u); do
  grep -q "^/dev/$b" /proc/mounts && echo "block device $b is mounted"
  grep -q "^/dev/$b" /proc/swaps && echo "block device $b is swap"
  ls /sys/block/$b/holders 2>/dev/null | grep -q . && echo "block device $b has holders"
done
:
"""


def driver_of(system: System, bdf: Bdf) -> str | None:
    """Return the driver that has *bdf*, None for none."""
    said = system.run(f"readlink {_DEVICES}/{bdf}/driver || :").stdout.strip()
    return said.rpartition("/")[2] or None


def override_of(system: System, bdf: Bdf) -> str | None:
    """Return its ``driver_override``, None for none."""
    said = system.run(f"cat {_DEVICES}/{bdf}/driver_override").stdout.strip()
    return None if said in ("", "(null)") else said


def why_in_use(system: System, bdf: Bdf) -> str:
    """Return why the host needs *bdf* itself (network with an address, mounted disk), or ''."""
    return "; ".join(system.run(_IN_USE.format(bdf=bdf)).stdout.split("\n")).strip("; ")


def bind(system: System, journal: Journal, bdf: Bdf, driver: str) -> DriverChange:
    """Give *bdf* to *driver*, whatever had it; the change is journalled first.

    :raise DeviceBusy: the host uses it.
    :raise HostError: the driver did not take it.
    """
    reason = why_in_use(system, bdf)
    if reason:
        raise DeviceBusy(
            f"{bdf} on {system.name} is in use by the host and is not taken",
            seen=reason,
            hint="free it, or choose another device",
        )
    change = journal.driver(bdf, driver=driver_of(system, bdf), override=override_of(system, bdf))
    with step("bind %s to %s", bdf, driver):
        _rebind(system, bdf, driver, override=driver)
    return change


def put_back(system: System, journal: Journal, change: DriverChange) -> None:
    """Undo *change*: the driver and the override that were there."""
    with step("give %s back to %s", change.bdf, change.driver or "no driver"):
        _rebind(system, Bdf.parse(change.bdf), change.driver, override=change.override)
        journal.undone(change)


def _rebind(system: System, bdf: Bdf, driver: str, *, override: str) -> None:
    try:
        done = system.run(_REBIND.format(bdf=bdf, driver=driver, override=override), timeout=90)
    except CommandFailed as error:
        raise HostError(
            f"{bdf} could not be given to {driver or 'no driver'} on {system.name}",
            seen=error.stderr,
            hint=f"dmesg of {system.name} says more",
        ) from error
    now = done.stdout.strip().rpartition("/")[2]
    if driver and now != driver:
        raise HostError(
            f"{driver} did not take {bdf} on {system.name}",
            seen=f"driver now: {now or 'none'}",
            hint=f"is the module loaded, and does {driver} accept this device? see dmesg",
        )
