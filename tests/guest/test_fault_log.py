"""Listening to faults, and waiting while the kernel would keep silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from harness.guest.fault_log import FaultLog
from harness.guest.system import System
from harness.guest.transport import Completed
from harness.model.pci import Bdf

FAULT = (
    "DMAR: [DMA Write NO_PASID] Request device [00:0c.0] fault addr 0x12346000"
    " [fault reason 0x05] PTE Write access is not set"
)


@dataclass
class Kernel:
    """A system whose log is a list, and whose time goes on by a second with each look."""

    now: float = 100.0
    lines: list[str] = field(default_factory=list)
    name: str = "there"
    looks: int = 0

    def say(self, text: str, *, at: float) -> None:
        self.lines.append(f"[{at:12.6f}] {text}")

    def run(self, command: str) -> Completed:
        self.looks += 1
        self.now += 1
        return Completed(command, 0, "\n".join([f"{self.now:.2f}", *self.lines]), "")

    def kernel_log_since(self, mark: int) -> str:
        return "\n".join(self.lines[mark:])


def listen(kernel: Kernel) -> FaultLog:
    return FaultLog.listen(cast(System, cast(Any, kernel)))


def test_faults_from_before_are_not_heard() -> None:
    kernel = Kernel()
    kernel.say(FAULT, at=50)
    log = listen(kernel)
    assert log.faults() == ()

    kernel.say(FAULT, at=102)

    assert [(f.source, f.address) for f in log.soon()] == [(Bdf(0, 0, 0xC, 0), 0x1234_6000)]


def test_silence_is_an_answer_after_a_while() -> None:
    assert listen(Kernel()).soon(timeout=0.01) == ()


def test_it_waits_while_the_rate_limit_is_used_up() -> None:
    kernel = Kernel()
    for n in range(9):
        kernel.say(FAULT, at=100 + n / 100)

    listen(kernel)

    assert kernel.looks > 3


def test_the_fourth_fault_of_vtd_in_five_seconds_would_be_told_by_half() -> None:
    kernel = Kernel()
    for n in range(3):
        kernel.say("DMAR: DRHD: handling fault status reg 2", at=100 + n / 10)
        kernel.say(FAULT, at=100.05 + n / 10)

    listen(kernel)

    assert kernel.looks > 1


def test_the_third_is_told() -> None:
    kernel = Kernel()
    for n in range(2):
        kernel.say("DMAR: DRHD: handling fault status reg 2", at=100 + n / 10)
        kernel.say(FAULT, at=100.05 + n / 10)

    listen(kernel)

    assert kernel.looks == 1


def test_the_last_moment_of_the_interval_counts() -> None:
    kernel = Kernel(now=104)
    for _n in range(3):
        kernel.say("DMAR: DRHD: handling fault status reg 2", at=99.999)
        kernel.say(FAULT, at=99.999)

    listen(kernel)

    assert kernel.looks > 1


def test_faults_of_long_ago_do_not_count() -> None:
    kernel = Kernel()
    for n in range(20):
        kernel.say(FAULT, at=90 + n / 100)

    listen(kernel)

    assert kernel.looks == 1
