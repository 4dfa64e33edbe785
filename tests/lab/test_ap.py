"""AP hosts of a run: which state they go on from, and what happens when that does not work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.ap.ap_host import ApHost, NoApInstruction
from harness.ap.spec import ApHostSpec
from harness.ap.symbols import Symbols
from harness.errors import ConfigError, HostError, MachineDied
from harness.images.cache import Store
from harness.lab import ap as module
from harness.lab.ap import ApLab
from harness.lab.parts import debian_suite
from harness.machine.saved_state import Method, SavedState, StateBroken
from harness.model.ap.hardware import ApHardware, Card

SYMBOLS = Symbols(0x1000, 0x2000, 0x3000)


class FakeHosts:
    """Stands for `ApHost`: what was booted and restored is written down."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.wrong: dict[str, list[Exception]] = {"boot": [], "restore": [], "save": []}

    def _maybe(self, what: str) -> None:
        self.events.append(what)
        if self.wrong[what]:
            raise self.wrong[what].pop(0)

    def _host(self) -> Any:
        def save(state: SavedState) -> None:
            self._maybe("save")
            state.memory.write_bytes(b"memory")
            state.devices.write_bytes(b"devices")

        return SimpleNamespace(save=save, close=lambda: self.events.append("close"))

    def boot(self, spec: ApHostSpec, *, evidence: Path, **_: object) -> Any:
        self._maybe("boot")
        (evidence / "console.log").write_text("ready")
        return self._host()

    def restore(self, spec: ApHostSpec, state: SavedState, **_: object) -> Any:
        assert state.memory.read_bytes() == b"memory"
        self._maybe("restore")
        return self._host()


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHosts]:
    fake = FakeHosts()
    monkeypatch.setattr(ApHost, "boot", fake.boot)
    monkeypatch.setattr(ApHost, "restore", fake.restore)
    monkeypatch.setattr(module, "discover_symbols", lambda *_, **__: SYMBOLS)
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path / "cache"))
    yield fake


def lab_of(place: Path, ways: tuple[Method, ...] = (Method.PRIVATE,), **changes: Any) -> ApLab:
    """Return a laboratory with images made of nothing."""
    for name in ("vmlinuz", "initrd", "inner.erofs"):
        (place / name).write_text(name)
    (place / "evidence").mkdir(exist_ok=True)
    image = SimpleNamespace(
        vmlinuz=place / "vmlinuz", initrd=place / "initrd", release="6.12",
        inner_qemu=SimpleNamespace(erofs=place / "inner.erofs"),
        qemu=SimpleNamespace(identity="bits", label="debian:trixie", version="10.0"),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(image, name, value)
    return ApLab(cast(Any, image), ways=ways, work=place / "work", store=Store(place / "states"))


def opened(lab: ApLab, place: Path, **words: Any) -> None:
    lab.open(lab.spec(**words), evidence=place / "evidence")


def test_a_state_is_made_once_and_gone_on_with(hosts: FakeHosts, tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    opened(lab, tmp_path)
    opened(lab, tmp_path)

    assert hosts.events == ["boot", "save", "close", "restore", "restore"]
    assert (tmp_path / "evidence/boot/console.log").read_text() == "ready"


def test_without_a_way_to_save_every_host_boots(hosts: FakeHosts, tmp_path: Path) -> None:
    opened(lab_of(tmp_path, ways=()), tmp_path)

    assert hosts.events == ["boot"]


@pytest.mark.parametrize(
    "words",
    [
        {"modules": "cdev"},
        {"append": "ap.apmask=0x0"},
        {"memory_mib": 1024},
        {"hardware": ApHardware(cards={7: Card()})},
    ],
    ids=str,
)
def test_another_host_is_another_state(
    hosts: FakeHosts, tmp_path: Path, words: dict[str, Any]
) -> None:
    lab = lab_of(tmp_path)
    opened(lab, tmp_path)
    opened(lab, tmp_path, **words)

    assert hosts.events.count("boot") == 2


def test_other_images_or_another_qemu_are_another_state(hosts: FakeHosts, tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    opened(lab, tmp_path)
    (tmp_path / "initrd").write_text("another")
    opened(lab, tmp_path)
    qemu = SimpleNamespace(identity="others", label="debian:sid", version="11.1")
    (tmp_path / "initrd").write_text("initrd")
    opened(lab_of(tmp_path, qemu=qemu), tmp_path)

    assert hosts.events.count("boot") == 3


def test_a_state_that_cannot_be_gone_on_with_is_made_again_once(
    hosts: FakeHosts, tmp_path: Path
) -> None:
    lab = lab_of(tmp_path)
    opened(lab, tmp_path)
    hosts.events.clear()
    hosts.wrong["restore"] = [MachineDied("it died")]
    opened(lab, tmp_path)

    assert hosts.events == ["restore", "boot", "save", "close", "restore"]


def test_a_host_boots_when_states_are_of_no_use(
    hosts: FakeHosts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = lab_of(tmp_path)
    hosts.wrong["restore"] = [StateBroken("no"), StateBroken("no, again")]
    opened(lab, tmp_path)

    assert hosts.events[-1] == "boot"
    assert "of no use, it boots" in caplog.text


def test_the_next_way_is_taken_where_one_cannot_save(hosts: FakeHosts, tmp_path: Path) -> None:
    hosts.wrong["save"] = [StateBroken("not this way")]
    opened(lab_of(tmp_path, ways=(Method.PRIVATE, Method.PLAIN)), tmp_path)

    assert hosts.events == ["boot", "save", "close", "boot", "save", "close", "restore"]


def test_a_host_that_does_not_boot_is_told_to_be_so(hosts: FakeHosts, tmp_path: Path) -> None:
    hosts.wrong["boot"] = [MachineDied("it died")]

    with pytest.raises(MachineDied):
        opened(lab_of(tmp_path), tmp_path)


def test_addresses_that_lead_nowhere_are_looked_for_again(
    hosts: FakeHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def discover(*_: object, **__: object) -> Symbols:
        looks.append(1)
        return SYMBOLS

    monkeypatch.setattr(module, "discover_symbols", discover)
    hosts.wrong["boot"] = [NoApInstruction("nothing came")]
    opened(lab_of(tmp_path, ways=()), tmp_path)

    assert (hosts.events, len(looks)) == (["boot", "boot"], 2)


def test_another_fault_of_a_host_is_not_tried_again(hosts: FakeHosts, tmp_path: Path) -> None:
    hosts.wrong["boot"] = [HostError("the modules of the set 'cdev' cannot be loaded")]

    with pytest.raises(HostError, match="cdev"):
        opened(lab_of(tmp_path), tmp_path)
    assert hosts.events == ["boot"]


def test_a_spec_is_a_value(tmp_path: Path) -> None:
    spec = lab_of(tmp_path).spec()

    assert dataclasses.replace(spec, cpus=2) != spec
    assert spec.files.inner_qemu.endswith("inner.erofs")


def test_only_debian_suites_have_a_qemu_for_s390x() -> None:
    assert debian_suite("debian:trixie-backports") == "trixie-backports"
    for word in ("system", "/usr/bin/qemu-system-x86_64", "debian:"):
        with pytest.raises(ConfigError, match="name a suite"):
            debian_suite(word)
