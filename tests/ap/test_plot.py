"""A piece of an AP bus: devices come and go by names of ours only."""

from __future__ import annotations

from harness.ap.attributes import Attributes
from harness.ap.matrix_device import MATRIX, TYPE, UUIDS
from harness.ap.plot import PLOT_UUIDS, Plot

FOREIGN = UUIDS[0]


class Sysfs:
    """Answers as ``ap-probe sysfs`` does; knows matrix devices only."""

    def __init__(self) -> None:
        self.devices = {FOREIGN}
        self.waiting: list[str] = []

    def send(self, line: str) -> None:
        self.waiting += line.split("\n")

    def receive(self, *, timeout: float = 30) -> str:
        kind, path, *text = self.waiting.pop(0).split(" ")
        if kind == "d":
            return f"ok features {' '.join(sorted(self.devices))}"
        if path == f"{TYPE}/create":
            self.devices.add(text[0])
        else:
            self.devices.remove(path.removeprefix(f"{MATRIX}/").removesuffix("/remove"))
        return "ok"

    def close(self) -> None:
        pass


def test_devices_have_names_of_their_own_and_go_together() -> None:
    sysfs = Sysfs()
    plot = Plot(Attributes(sysfs, where="host"), (5,), (4,))

    made = [plot.device().uuid for _ in range(3)]
    assert made == list(PLOT_UUIDS[:3])
    plot.clear()

    assert sysfs.devices == {FOREIGN}
