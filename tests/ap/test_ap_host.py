"""Parts of an AP host that need no machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ap.ap_host import parse_records
from harness.ap.instruction import Instruction
from harness.ap.instruction_log import InstructionLog
from harness.ap.kernel_modules import modules_of, names_of
from harness.errors import HostError, MachineError
from harness.guest.local import LocalTransport
from harness.machine.qmp import Qmp
from harness.model.ap.id import Apqn


def test_records_of_the_kernel_log_have_numbers_and_text_without_fields() -> None:
    text = (
        "6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n\0"
        "4,340,5690716,-,caller=T1;vfio_ap_mdev: 05.0004; in use\n\0"
        "broken\0"
    )

    assert parse_records(text) == [
        (339, "NET: Registered"),
        (340, "vfio_ap_mdev: 05.0004; in use"),
    ]
    assert parse_records("") == []


def test_modules_are_known_by_their_file_names() -> None:
    paths = ("/lib/modules/x/kernel/zcrypt_cex4.ko", "/m/rng-core.ko.xz")

    assert names_of(paths) == ("zcrypt_cex4", "rng_core")


def test_a_set_that_the_image_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(HostError, match="no modules of the set 'nonsense'"):
        modules_of(LocalTransport(), "nonsense")


def test_instructions_are_written_down_as_they_come(tmp_path: Path) -> None:
    log = InstructionLog(tmp_path / "log")
    log(Instruction(0, 1.5, "ZAPQ", Apqn(5, 4), 0, (0x2000504, 0, 0)))
    assert (tmp_path / "log").read_text() == "1.500000 ZAPQ 05.0004 rc 0x00\n"
    log.close()
    log(Instruction(1, 2, "QCI", None, 0, (0, 0, 0)))
    log.close()


def test_a_command_that_is_forbidden_is_not_given_in_either_monitor(tmp_path: Path) -> None:
    qmp = Qmp("inner", tmp_path / "qmp.jsonl")
    qmp.forbid("cont", "there is no SIE")

    with pytest.raises(MachineError, match=r"cont is not given here(.|\n)*no SIE"):
        qmp.execute("cont")
    with pytest.raises(MachineError, match="cont is not given"):
        qmp.hmp("cont")
    qmp.close()
