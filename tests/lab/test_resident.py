"""Who ends whom among the machines that have the test devices, with fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import HarnessError, LaunchFailed, MachineDied, TimeStandsStill, Unreachable
from harness.host.host import Host
from harness.lab import resident as module
from harness.lab.resident import LATE, Resident


@dataclass(eq=False)
class FakeNested:
    """A machine that can be unwell, and writes down its end."""

    name: str
    log: list[str]
    sick: bool = False
    owns_host: bool = False
    silent: bool = False

    @property
    def machine(self) -> Any:
        return SimpleNamespace(
            check=self._check, check_running=lambda: None, spec=SimpleNamespace(name=self.name),
            qmp=SimpleNamespace(flat_views_read=0),
        )  # fmt: skip

    @property
    def guest(self) -> Any:
        return SimpleNamespace(keep_kernel_log=self._keep)

    def _check(self) -> None:
        if self.sick:
            raise MachineDied(f"{self.name}: QEMU was ended")

    def _keep(self) -> None:
        if self.silent:
            raise Unreachable("no answer")

    def close(self) -> None:
        self.log.append(f"end {self.name}")


@dataclass
class Lab:
    """A resident, and what was done."""

    resident: Resident
    log: list[str]
    guests: list[Any] = field(default_factory=list)
    """Machines that were asked to be up in an opened host."""
    took_fails: bool = False
    still: int = 0
    """Guests whose time will not go on."""
    had_to_boot: bool = False

    def get(self, name: str, **more: Any) -> FakeNested:
        return cast(FakeNested, self.resident.guest(name, **more))

    def bare(self, **more: Any) -> FakeNested:
        return cast(FakeNested, self.resident.firmware_only(("edu",), **more))


MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeLab:
    """Make a lab; *apart*: with a host for each guest."""

    def make(*, apart: bool) -> Lab:
        log: list[str] = []

        def new(kind: str) -> Callable[..., FakeNested]:
            def start(host: Any, names: Any, *, evidence: Path, **_: Any) -> FakeNested:
                log.append(f"{kind} {evidence.name} on {host.name}")
                if kind == "take" and lab.took_fails:
                    raise LaunchFailed("nobody holds it", exit_status=None, stderr="")
                if kind == "take" and lab.still:
                    lab.still -= 1
                    raise TimeStandsStill("its timer does not wake it")
                return FakeNested(evidence.name, log)

            return start

        def evidence(name: str) -> Path:
            (tmp_path / name).mkdir()
            return tmp_path / name

        def opened(spec: Any, place: Path) -> Any:
            lab.guests.append(spec)
            name = f"host of {place.parent.name}"
            return SimpleNamespace(
                name=name, left=None if lab.had_to_boot else object(),
                close=lambda: log.append(f"end {name}"),
            )  # fmt: skip

        monkeypatch.setattr(module, "start_nested", new("start"))
        monkeypatch.setattr(module, "take_nested", new("take"))
        monkeypatch.setattr(module, "prepare", lambda host, names: {n: n for n in names})
        files = SimpleNamespace(kernel="k", initrd="i")
        host = cast(Host, SimpleNamespace(name="the host", guest=files))
        lab = Lab(
            Resident(host, ("nvme", "edu"), evidence, cast(Any, opened) if apart else None), log
        )
        return lab

    return make


# on one host


def test_here_a_guest_is_started_once_and_lives_on(make_lab: MakeLab) -> None:
    lab = make_lab(apart=False)

    assert lab.get("resident") is cast(Any, lab.resident.get())
    assert lab.log == ["start resident-1 on the host"]


def test_here_every_other_wish_ends_the_one_that_has_the_devices(make_lab: MakeLab) -> None:
    lab = make_lab(apart=False)

    lab.get("resident")
    lab.get("other")
    bare = lab.bare()
    assert lab.bare() is bare
    lab.bare(properties={"x-no-mmap": True})
    lab.get("resident")

    assert [line for line in lab.log if line.startswith("end")] == [
        "end resident-1", "end other-2", "end firmware-3", "end firmware-4",
    ]  # fmt: skip


def test_here_a_guest_that_is_not_well_is_started_again(make_lab: MakeLab) -> None:
    lab = make_lab(apart=False)
    first = lab.get("resident")
    first.sick = True

    assert lab.get("resident") is not first
    assert lab.log == ["start resident-1 on the host", "end resident-1",
                       "start resident-2 on the host"]  # fmt: skip


def test_here_a_device_that_is_to_be_free_ends_the_guest_that_has_it(make_lab: MakeLab) -> None:
    lab = make_lab(apart=False)
    lab.get("resident")

    assert cast(Any, lab.resident.free("edu")) == "edu"
    lab.resident.free_devices()

    assert lab.log[1:] == ["end resident-1"]


# each on a host of its own


def test_apart_two_guests_live_side_by_side(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)

    one, other = lab.get("resident"), lab.get("other")

    assert (lab.get("resident"), lab.get("other")) == (one, other)
    assert one.owns_host and other.owns_host
    assert lab.log == [
        "take resident-1 on host of resident-1", "take other-2 on host of other-2",
    ]  # fmt: skip


def test_apart_a_third_guest_ends_the_one_that_was_used_least_lately(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)
    for name in ("a", "b", "a", "c"):
        lab.get(name)

    assert [line for line in lab.log if line.startswith("end")] == ["end b-2"]


def test_apart_a_machine_on_the_first_host_ends_none_of_the_others(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)
    guest, bare = lab.get("resident"), lab.bare()

    lab.resident.free_devices()

    assert lab.get("resident") is guest
    assert [line for line in lab.log if line.startswith("end")] == [f"end {bare.name}"]


def test_apart_a_guest_that_is_not_well_is_made_again_and_the_others_stay(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(apart=True)
    sick, well = lab.get("a"), lab.get("b")
    sick.sick = True

    assert lab.get("a") is not sick
    assert lab.get("b") is well
    assert [line for line in lab.log if line.startswith("end")] == ["end a-1"]


def test_apart_a_guest_waits_for_its_devices_and_is_told_so(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)

    lab.get("resident", append="quiet")

    assert lab.guests[0].boot.append.endswith(f"quiet {LATE}")


def test_apart_a_host_that_had_to_boot_starts_its_guest_with_the_devices(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(apart=True)
    lab.had_to_boot = True

    assert lab.get("resident").owns_host
    assert lab.log == ["start resident-1 on host of resident-1"]


def test_apart_a_guest_that_cannot_be_taken_over_takes_its_host_with_it(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)
    lab.took_fails = True

    with pytest.raises(LaunchFailed, match="nobody holds it"):
        lab.get("resident")
    assert lab.log[1:] == ["end host of resident-1"]

    lab.took_fails = False
    assert lab.get("resident").name == "resident-2"


# both


@pytest.mark.parametrize("apart", [False, True])
def test_at_the_end_all_end_though_one_does_not_answer(make_lab: MakeLab, apart: bool) -> None:
    lab = make_lab(apart=apart)
    first = lab.get("a")
    first.silent = True
    last = lab.bare() if apart else first

    lab.resident.close()
    lab.resident.close()

    assert sorted(line for line in lab.log if line.startswith("end")) == [
        f"end {name}" for name in dict.fromkeys((first.name, last.name))
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_a_guest_that_was_ended_is_made_again_when_it_is_wanted(
    make_lab: MakeLab, apart: bool
) -> None:
    lab = make_lab(apart=apart)
    first = lab.resident.get()

    lab.resident.end(first)

    assert lab.resident.get() is not first
    assert lab.log.count("end resident-1") == 1


def test_all_are_ended_though_the_end_of_one_fails(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(apart=True)
    stuck, other = lab.get("a"), lab.get("b")

    def fail() -> None:
        lab.log.append("fail a")
        raise MachineDied("it does not end")

    monkeypatch.setattr(stuck, "close", fail)
    with pytest.raises(HarnessError):
        lab.resident.close()

    assert f"end {other.name}" in lab.log


def test_a_guest_whose_time_stands_still_is_made_again(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)
    lab.still = 1

    lab.get("one")

    assert lab.log == [
        "take one-1 on host of one-1", "end host of one-1", "take one-1 on host of one-1",
    ]  # fmt: skip


def test_one_that_stands_still_each_time_is_told(make_lab: MakeLab) -> None:
    lab = make_lab(apart=True)
    lab.still = 4

    with pytest.raises(TimeStandsStill, match="does not wake it"):
        lab.get("one")

    assert lab.log.count("end host of one-1") == 4
