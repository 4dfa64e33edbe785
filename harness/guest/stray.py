"""DMA of an edu that needs no memory of ours: it writes from its own buffer.

`harness.guest.edu.Edu` fetches a value from the system's memory first, by physical address.
Below a vIOMMU that no driver has set up for the function, that fetch would fault itself.
"""

from __future__ import annotations

from harness.guest.system import System
from harness.guest.vfio_driver import VfioDriver
from harness.model.pci import Bdf
from harness.wait import wait_until

_BUFFER = 0x40000
_SOURCE, _TARGET, _COUNT, _COMMAND = 0x80, 0x88, 0x90, 0x98
_RUN, _TO_PCI = 0x1, 0x2
_MEMORY, _MASTER = 0x2, 0x4


def stray_write(system: System, bdf: Bdf, address: int, *, master: bool = True) -> None:
    """Let the edu at *bdf* write 4 bytes of zero to *address*; return when its engine is idle.

    :param master: with False it is no bus master, so the write goes nowhere.
    """
    path = system.resource_file(bdf, 0)

    def write(register: int, value: int) -> None:
        system.probe("mem", "write", path, register, "--width", "8", "--value", value)

    command = _MEMORY | (_MASTER if master else 0)
    system.probe("config", "write", str(bdf), 4, "--width", "2", "--value", command)
    for register, value in ((_SOURCE, _BUFFER), (_TARGET, address), (_COUNT, 4)):
        write(register, value)
    write(_COMMAND, _RUN | _TO_PCI)
    wait_until(
        f"{system.name}: DMA engine of {bdf} idle",
        lambda: not int(system.probe("mem", "read", path, _COMMAND)["last"], 0) & _RUN,
        timeout=10,
    )


def stray_write_of(driver: VfioDriver, address: int, *, timeout: float = 10) -> None:
    """Let the edu that *driver* drives write 4 bytes of zero to *address*.

    Returns when its engine is idle.
    """
    for register, value in ((_SOURCE, _BUFFER), (_TARGET, address), (_COUNT, 4)):
        driver.write(0, register, value, width=8)
    driver.write(0, _COMMAND, _RUN | _TO_PCI, width=8)
    wait_until(
        f"DMA engine of {driver.bdf} idle",
        lambda: not driver.read(0, _COMMAND) & _RUN,
        timeout=timeout,
    )
