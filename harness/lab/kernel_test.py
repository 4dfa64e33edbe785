"""One of the programs that Linux brings to test itself with, run on a host or in a guest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import ParseError, WaitTimeout
from harness.guest.system import System
from harness.host.supply import supply
from harness.images.kernel_tests import KernelTests
from harness.parse.ktap import KtapReport, parse_ktap


@dataclass(frozen=True, slots=True)
class KernelTest:
    """A program of ``tools/testing/selftests`` on *system*."""

    system: System
    path: str
    """There."""
    version: str
    """Of the source that it is of."""

    def run(
        self,
        *words: object,
        variants: Sequence[str] = (),
        only: Sequence[str] = (),
        leave_out: Sequence[str] = (),
        timeout: float = 120,
    ) -> KtapReport:
        """Run it and return its results; those that it skips are among them.

        :param words: arguments: the function to test.
        :param variants: run no others (``-v`` of ``kselftest_harness.h``).
        :param only: names of tests, others are not run (``-t``).
        :param leave_out: names of tests that are not run (``-T``).
        :raise ParseError: it gave no results; says what it printed and how it ended.
        :raise WaitTimeout: one of its tests took longer than it allows itself (30 s, for
            computers that are not emulated): no verdict on the kernel.
        """
        # The first filter that fits decides.
        filters = [word for name in leave_out for word in ("-T", name)]
        filters += [word for name in variants for word in ("-v", name)]
        filters += [word for name in only for word in ("-t", name)]
        # What went wrong is said on the other stream, between the results.
        line = shlex.join([self.path, *filters, *map(str, words)])
        done = self.system.run(f"{line} 2>&1", check=False, timeout=timeout)
        try:
            report = parse_ktap(done.stdout)
        except ParseError as error:
            raise ParseError(
                f"{error.where} of {self.path} of Linux {self.version}",
                text=f"exit status {done.exit_status}\n{done.stdout}"[-2000:],
                where="output",
            ) from error
        if late := report.timed_out:
            raise WaitTimeout(
                f"{late[0].name} of {self.path} was ended by its own time limit",
                seen="\n".join(late[0].said),
                hint="run it on a host that is less busy, or has KVM",
            )
        return report


def place_kernel_test(system: System, tests: KernelTests, name: str) -> KernelTest:
    """Have the program *name* (``vfio/vfio_pci_device_test``) on *system*."""
    path = supply(system.transport, tests.root / name, key=tests.key)
    return KernelTest(system, path, tests.version)
