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
if [ -n '{driver}' ] && ! [ -e '/sys/bus/pci/drivers/{driver}' ]; then modprobe '{driver}'; fi
echo '{override}' > $d/driver_override
if [ -e $d/driver ]; then echo {bdf} > $d/driver/unbind; fi
if [ -n '{driver}' ]; then echo {bdf} > /sys/bus/pci/drivers_probe; fi
readlink $d/driver || :
"""

# Disks are found by where /sys/class/block leads, as an nvme has no directory "block"; with
# multipath its namespace hangs below a subsystem that links to the controllers. "cd -P" is part
# of the shell, readlink a process each.
_IN_USE = """
at() {{ (cd -P "$1" 2>/dev/null && pwd); }}
d=$(at /sys/bus/pci/devices/{bdf})
d=${{d:-/it/is/not/there}}
for n in /sys/class/net/*; do
  case $(at "$n") in "$d"/*) ;; *) continue ;; esac
  name=${{n##*/}}
  [ -h "$n/master" ] && echo "network $name belongs to $(basename "$(readlink "$n/master")")"
  if command -v ip > /dev/null; then
    ip -o addr show dev "$name" | grep -q ' inet' && echo "network $name has an address"
  elif [ $(( $(cat "$n/flags") & 1 )) = 1 ]; then
    echo "network $name is up"
  fi
done
for b in /sys/class/block/*; do
  p=$(at "$b")
  case $p in
  "$d"/*) ;;
  */nvme-subsystem/*)
    s=${{p#*/nvme-subsystem/}} mine=
    for c in "${{p%%/nvme-subsystem/*}}/nvme-subsystem/${{s%%/*}}"/nvme*; do
      [ -h "$c" ] || continue
      case $(at "$c") in "$d"/*) mine=1 ;; esac
    done
    [ -n "$mine" ] || continue ;;
  *) continue ;;
  esac
  name=${{b##*/}} number=$(cat "$b/dev")
  grep -q "^/dev/$name " /proc/mounts && echo "block device $name is mounted"
  cut -d' ' -f3 /proc/self/mountinfo | grep -qx "$number" && echo "$name ($number) is mounted"
  grep -q "^/dev/$name " /proc/swaps && echo "block device $name is swap"
  ls "$b/holders" 2>/dev/null | grep -q . && echo "block device $name has holders"
done
:
"""

_NOW = """
d=/sys/bus/pci/devices/{bdf}
echo "driver $(readlink $d/driver)"
echo "override $(cat $d/driver_override)"
"""


def why_in_use(system: System, bdf: Bdf) -> str:
    """Return why the host needs *bdf* itself, or nothing.

    A network with an address or in a bridge or bond; a disk, or a partition of it, that is
    mounted, swap, or part of a volume (LVM, RAID, dm-crypt).
    """
    return _joined(system.run(_IN_USE.format(bdf=bdf)).stdout.splitlines())


def _joined(reasons: list[str]) -> str:
    return "; ".join(reasons).strip("; ")


def group_of(system: System, bdf: Bdf) -> int | None:
    """Return the number of its IOMMU group, None if no IOMMU has it."""
    said = system.run(f"readlink {_DEVICES}/{bdf}/iommu_group || :").stdout.strip()
    return int(said.rpartition("/")[2]) if said else None


def bind(
    system: System, journal: Journal, bdf: Bdf, driver: str, *, group: str = ""
) -> DriverChange:
    """Give *bdf* to *driver*, whatever had it; the change is journalled first.

    A module that is not loaded is loaded, and stays.

    :param group: name of the lock that is held on it.

    :raise DeviceBusy: the host uses it.
    :raise HostError: the driver did not take it.
    """
    *reasons, driver_now, override_now = system.run(
        (_IN_USE + _NOW).format(bdf=bdf)
    ).stdout.splitlines()
    if reason := _joined(reasons):
        raise DeviceBusy(
            f"{bdf} on {system.name} is in use by the host and is not taken",
            seen=reason,
            hint="free it, or choose another device",
        )
    override = override_now.removeprefix("override ").strip()
    change = journal.driver(
        bdf,
        driver=driver_now.removeprefix("driver ").rpartition("/")[2] or None,
        override=None if override in ("", "(null)") else override,
        group=group,
    )
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
