"""A running Linux that commands can be given to: what host and guest have in common."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property

from harness.errors import CommandFailed
from harness.guest.transport import Command, Completed, Conversation, Transport
from harness.model.interrupts import InterruptTable
from harness.model.pci import Bdf, PciFunction, PciId
from harness.model.version import KernelVersion
from harness.parse.interrupts import parse_interrupts
from harness.parse.pci_bus import READ_FUNCTIONS, parse_functions

_PCI = "/sys/bus/pci/devices"


class System:
    """A running Linux behind a `Transport`.

    :param level: ``L0``, ``L1`` or ``L2``; for logs and messages.
    """

    def __init__(self, transport: Transport, *, level: str) -> None:
        self.transport = transport
        self.level = level

    @property
    def name(self) -> str:
        """For messages."""
        return self.transport.name

    # -- commands and files -----------------------------------------------------------------

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run *command* to its end; see `Transport.run`."""
        return self.transport.run(command, timeout=timeout, stdin=stdin, check=check)

    def succeeds(self, command: Command, *, timeout: float = 60) -> bool:
        """Say whether *command* exits with 0."""
        return self.run(command, timeout=timeout, check=False).exit_status == 0

    def read_text(self, path: str) -> str:
        """Return a file as text.

        :raise CommandFailed: it cannot be read.
        """
        return self.run(["cat", path]).stdout

    def write_text(self, path: str, text: str) -> None:
        """Write *text* to a file or sysfs attribute.

        :raise CommandFailed: the write was refused; ``stderr`` holds the errno text.
        """
        self.transport.write(path, text.encode())

    @contextlib.contextmanager
    def setting(self, path: str, text: str) -> Iterator[None]:
        """Have a file of procfs or sysfs say *text* while inside.

        :raise CommandFailed: it cannot be read, or the write was refused.
        """
        before = chosen(self.read_text(path))
        self.write_text(path, text)
        try:
            yield
        finally:
            # What is not there any more needs nobody to put it back.
            if self.exists(path):
                self.write_text(path, before)

    def parameter(self, module: str, name: str, value: str) -> AbstractContextManager[None]:
        """Have the parameter *name* of a kernel module at *value* while inside; see `setting`."""
        return self.setting(f"/sys/module/{module}/parameters/{name}", value)

    def exists(self, path: str) -> bool:
        """Say whether *path* exists."""
        return self.succeeds(["test", "-e", path])

    def list_directory(self, path: str) -> list[str]:
        """Return the names in *path*, sorted; empty if there is no such directory."""
        return sorted(self.run(f"ls -A {shlex.quote(path)} 2>/dev/null || :").stdout.split())

    # -- facts --------------------------------------------------------------------------------

    @cached_property
    def kernel(self) -> KernelVersion:
        """The running kernel."""
        return KernelVersion.parse(self.run("uname -r").stdout.strip())

    @cached_property
    def page_size(self) -> int:
        """Bytes of a page: the unit in which mappings are rounded."""
        said = self.run("getconf PAGESIZE 2>/dev/null || probe pagesize", check=False).stdout
        match = re.search(r"\d+", said)
        return int(match[0]) if match else 4096

    @cached_property
    def command_line(self) -> str:
        """What the kernel was started with."""
        return self.read_text("/proc/cmdline").strip()

    def kernel_log(self) -> str:
        """Return the whole kernel log."""
        return self.run("dmesg").stdout

    def kernel_log_since(self, mark: int) -> str:
        """Return what the kernel logged after *mark* (from `kernel_log_mark`)."""
        lines = self.kernel_log().splitlines()
        return "\n".join(lines[mark:])

    def kernel_log_mark(self) -> int:
        """Return the number of lines logged so far."""
        return int(self.run("dmesg | wc -l").stdout)

    def interrupts(self) -> InterruptTable:
        """Read ``/proc/interrupts``."""
        return parse_interrupts(self.read_text("/proc/interrupts"))

    def iommu_groups(self) -> dict[int, tuple[Bdf, ...]]:
        """Return group number to functions."""
        said = self.run("ls -d /sys/kernel/iommu_groups/*/devices/* 2>/dev/null || :").stdout
        groups: dict[int, list[Bdf]] = {}
        for line in said.split():
            parts = line.split("/")
            groups.setdefault(int(parts[4]), []).append(Bdf.parse(parts[6]))
        return {number: tuple(sorted(members)) for number, members in sorted(groups.items())}

    # -- PCI ------------------------------------------------------------------------------------

    def functions(self) -> tuple[PciFunction, ...]:
        """Read every PCI function: configuration space, resources, driver, IOMMU group."""
        return tuple(self._read_functions("*"))

    def function(self, bdf: Bdf) -> PciFunction:
        """Read one PCI function.

        :raise KeyError: there is none at *bdf*.
        """
        for function in self._read_functions(str(bdf)):
            return function
        raise KeyError(f"{self.name} has no PCI function {bdf}")

    def find(self, pci_id: PciId) -> tuple[PciFunction, ...]:
        """Return the functions with this vendor and device id."""
        return tuple(function for function in self.functions() if function.id == pci_id)

    def _read_functions(self, where: str) -> Iterator[PciFunction]:
        yield from parse_functions(self.run(READ_FUNCTIONS.format(where=where)).stdout)

    def rebind(self, bdf: Bdf) -> None:
        """Let the driver of *bdf* go and take the function again."""
        self.run(
            f"d=$(realpath {_PCI}/{bdf}/driver) && echo {bdf} > $d/unbind && echo {bdf} > $d/bind"
        )

    @contextlib.contextmanager
    def without_driver(self, bdf: Bdf) -> Iterator[None]:
        """Have nobody drive *bdf*, which vfio-pci has, while inside."""
        driver = "/sys/bus/pci/drivers/vfio-pci"
        self.write_text(f"{driver}/unbind", str(bdf))
        try:
            yield
        finally:
            self.write_text(f"{driver}/bind", str(bdf))

    def load_driver(self, name: str) -> None:
        """Have the driver *name*: as a module, unless it is built in.

        :raise CommandFailed: the kernel has no such module.
        """
        self.run(f"[ -e /sys/bus/pci/drivers/{name} ] || modprobe {name}")

    def reset_methods(self, bdf: Bdf) -> tuple[str, ...]:
        """Return ``reset_method`` of *bdf*, in the order of trial; empty for none."""
        said = self.run(f"cat {_PCI}/{bdf}/reset_method 2>/dev/null || :").stdout
        return tuple(said.split())

    def reset(self, bdf: Bdf) -> None:
        """Reset *bdf* through sysfs.

        :raise CommandFailed: it has no reset, or the reset failed.
        """
        self.run(f"echo 1 > {_PCI}/{bdf}/reset")

    def resource_file(self, bdf: Bdf, bar: int) -> str:
        """Return the sysfs file that maps BAR *bar*."""
        return f"{_PCI}/{bdf}/resource{bar}"

    # -- the static helper ------------------------------------------------------------------------

    @property
    def probe_path(self) -> str:
        """Path of the static helper there."""
        return "/usr/bin/probe"

    def probe(self, *words: str | int, timeout: float = 60, check: bool = True) -> dict[str, str]:
        """Run ``probe`` with *words*; return its ``key=value`` output.

        Integers are given in hex. A key that repeats keeps its last value.

        :raise CommandFailed: it failed; ``stderr`` has the cause.
        """
        arguments = [hex(word) if isinstance(word, int) else word for word in words]
        done = self.run([self.probe_path, *arguments], timeout=timeout, check=check)
        return parse_pairs(done.stdout)

    def converse(self, *words: str | int) -> Conversation:
        """Start ``probe`` with *words* and talk to it."""
        arguments = [hex(word) if isinstance(word, int) else word for word in words]
        return self.transport.open([self.probe_path, *arguments])


def chosen(text: str) -> str:
    """Return what a file of procfs or sysfs says: of ``always [advise] never`` the one chosen."""
    found = re.search(r"\[(\S+)\]", text)
    return found[1] if found else text.strip()


def parse_pairs(text: str) -> dict[str, str]:
    """Read ``key=value`` words, any number a line."""
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


__all__ = ["CommandFailed", "System", "chosen", "parse_pairs"]
