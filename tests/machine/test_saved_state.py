"""Saving and going on: command lines, and what a QEMU may say, with a fake one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.machine.command import MachineSpec, Sockets, command_line
from harness.machine.machine import Machine
from harness.machine.saved_state import (
    Method,
    SavedState,
    StateBroken,
    go_on,
    save,
    to_be_saved,
    to_go_on,
)

Start = Callable[..., Machine]

SPEC = MachineSpec("m", machine_options={"kernel-irqchip": "split"}, memory_mib=64)
PLACE = Path("/states/a")
MEMORY = "memory-backend-file,id=memory,size=64M,mem-path=/states/a/memory"


def words_of(spec: MachineSpec) -> list[str]:
    """Return the words that *spec* has and `SPEC` does not."""
    plain = command_line(SPEC, Sockets("/run"))
    return [word for word in command_line(spec, Sockets("/run")) if word not in plain]


def test_memory_that_is_kept_apart_is_shared_while_it_is_saved() -> None:
    assert words_of(to_be_saved(SPEC, SavedState(PLACE, Method.PRIVATE))) == [
        "q35,kernel-irqchip=split,memory-backend=memory",
        "-object", f"{MEMORY},share=on",
    ]  # fmt: skip


def test_memory_that_is_kept_apart_is_private_to_who_goes_on() -> None:
    spec = to_go_on(SPEC, SavedState(PLACE, Method.PRIVATE), read_only=False)

    assert words_of(spec) == [
        "q35,kernel-irqchip=split,memory-backend=memory",
        "-object", f"{MEMORY},share=off",
        "-incoming", "defer",
    ]  # fmt: skip


def test_memory_that_cannot_be_opened_for_writing_is_said_to_be_readable_only() -> None:
    spec = to_go_on(SPEC, SavedState(PLACE, Method.PRIVATE), read_only=True)

    assert f"{MEMORY},share=off,readonly=on,rom=off" in words_of(spec)


@pytest.mark.parametrize("method", [Method.MAPPED, Method.PLAIN])
def test_memory_that_goes_with_the_rest_changes_nothing_but_the_waiting(method: Method) -> None:
    state = SavedState(PLACE, method)

    assert to_be_saved(SPEC, state) == SPEC
    assert words_of(to_go_on(SPEC, state, read_only=True)) == ["-incoming", "defer"]


def test_a_path_with_a_comma_stays_one_value() -> None:
    spec = to_be_saved(SPEC, SavedState(Path("/a,b"), Method.PRIVATE))

    assert "mem-path=/a,,b/memory" in spec.objects[0]


def test_other_objects_and_words_of_a_machine_stay() -> None:
    spec = MachineSpec("m", objects=("rng-builtin,id=r",), extra=("-S",))

    gone_on = to_go_on(spec, SavedState(PLACE, Method.PRIVATE), read_only=False)

    assert gone_on.objects[0] == "rng-builtin,id=r"
    assert gone_on.extra == ("-S", "-incoming", "defer")


def said_to(evidence: Path) -> list[dict[str, Any]]:
    """Return what QEMU was asked, without the questions after progress."""
    lines = [json.loads(line) for line in (evidence / "qmp.jsonl").read_text().splitlines()]
    asked = [line["message"] for line in lines if line["way"] == ">"]
    return [one for one in asked if one.get("execute") not in ("query-migrate", "query-version")]


def names_of(asked: list[dict[str, Any]]) -> list[str]:
    return [one["execute"] for one in asked if one["execute"] != "qmp_capabilities"]


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize(
    ("how", "save_to", "load_from"),
    [
        ("", "file:{}/devices", "file:{}/devices"),
        ("old", "exec:cat > '{}/devices'", "exec:cat '{}/devices'"),
    ],
)
def test_a_machine_is_stopped_and_saved_and_runs_when_it_was_loaded(
    start: Start, evidence: Path, tmp_path: Path, method: Method, how: str, save_to: str,
    load_from: str,
) -> None:  # fmt: skip
    place = tmp_path / "it's"
    quoted = str(place).replace("'", "'\\''") if how else str(place)
    machine, state = start(how), SavedState(place, method)

    save(machine.qmp, state, guard=machine.check_alive)
    go_on(machine.qmp, state, guard=machine.check_alive)

    asked = said_to(evidence)
    capable = ["migrate-set-capabilities"] if method.capabilities else []
    assert names_of(asked) == [*capable, "stop", "migrate", *capable, "migrate-incoming", "cont"]
    assert [one["arguments"]["uri"] for one in asked if "uri" in one.get("arguments", {})] == [
        save_to.format(quoted),
        load_from.format(quoted),
    ]


def test_a_qemu_that_lacks_a_capability_is_told_before_anything_is_stopped(
    start: Start, evidence: Path, tmp_path: Path
) -> None:
    machine = start("cannot")

    with pytest.raises(
        StateBroken, match=r"cannot keep memory the way 'mapped'(.|\n)*'mapped-ram'(.|\n)*next: "
    ):
        save(machine.qmp, SavedState(tmp_path, Method.MAPPED), guard=machine.check_alive)

    assert "stop" not in names_of(said_to(evidence))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("blocked", "State blocked by non-migratable device '0000:00:04.0/nvme'"),
        ("failing", "No space left on device"),
        ("endless", '"status": "active"'),
    ],
)
def test_a_state_that_cannot_be_saved_says_why(
    start: Start, evidence: Path, tmp_path: Path, how: str, said: str
) -> None:
    machine = start(how)

    with pytest.raises(StateBroken, match="could not save its state") as caught:
        save(machine.qmp, SavedState(tmp_path, Method.PLAIN), guard=lambda: None, timeout=0.2)

    assert said in caught.value.seen
    assert caught.value.evidence == evidence / "qmp.jsonl"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("failing", "No space left on device"),
        ("endless", '"status": "active"'),
        ("die-loading", "exited with 1(.|\n)*error while loading state section id 2"),
    ],
)
def test_a_machine_that_cannot_go_on_says_why_and_never_runs(
    start: Start, evidence: Path, tmp_path: Path, how: str, said: str
) -> None:
    machine = start(how)

    with pytest.raises(StateBroken, match=f"could not restore its state(.|\n)*{said}"):
        go_on(
            machine.qmp, SavedState(tmp_path, Method.PLAIN), guard=machine.check_alive, timeout=0.2
        )

    assert "cont" not in names_of(said_to(evidence))


def test_a_machine_is_saved_when_all_of_its_vcpus_are_halted(start: Start, evidence: Path) -> None:
    machine = start("busy")

    save(machine.qmp, SavedState(evidence, Method.PLAIN), guard=machine.check_alive, idle=True)

    names = names_of(said_to(evidence))
    assert names == [*["stop", "human-monitor-command", "cont"] * 3,
                     "stop", "human-monitor-command", "migrate"]  # fmt: skip


def test_a_machine_that_is_never_idle_is_not_saved(start: Start, evidence: Path) -> None:
    machine = start("never-halts")

    with pytest.raises(StateBroken, match=r"every vCPU halted(.|\n)*next: something in it keeps"):
        save(
            machine.qmp, SavedState(evidence, Method.PLAIN), guard=machine.check_alive,
            idle=True, timeout=0.2,
        )  # fmt: skip
    assert "migrate" not in names_of(said_to(evidence))
