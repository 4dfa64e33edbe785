"""A vfio-user device that QEMU refuses kills it when it is plugged while QEMU runs.

Not part of the suites: docs/findings/vfio-user-refused-hot-plug.md says how to start it.
"""

from __future__ import annotations

import pytest

from harness.device.server import serve
from harness.errors import QmpFailed
from harness.model.pci import BarKind
from harness.shapes.bench import DRIVER, Bench
from harness.shapes.observe import Build
from harness.shapes.served import device_of
from harness.shapes.shape import Shape, ShapeBar, ShapeMsix

BARS = (ShapeBar(0, BarKind.MEM64, 0x8000),)
GOOD = ShapeMsix(17, 0, 0x2000, 0, 0x3000)
REFUSED = {
    "PBA outside its BAR": ShapeMsix(17, 0, 0x2000, 0, 0x8000),
    "PBA in the table": ShapeMsix(17, 0, 0x2000, 0, 0x2000),
}


def plug(build: Build, msix: ShapeMsix) -> str:
    """Plug such a device into a running QEMU; return what it answers, '' if it takes it."""
    port = ["-device", "pcie-root-port,id=rp0,chassis=1,addr=4"]
    with (
        Bench(build, (), words=port) as bench,
        serve(device_of(Shape(BARS, msix)), bench.directory / "hot"),
    ):
        wanted = {"driver": DRIVER, "id": "hot", "bus": "rp0"}
        try:
            bench.qmp.execute("device_add", wanted | {"socket": {"type": "unix", "path": "hot"}})
        except QmpFailed as refused:
            return refused.description
        return ""


def test_a_good_device_is_taken(shape_qemu: Build) -> None:
    """The control: what is not wrong is plugged."""
    assert not plug(shape_qemu, GOOD)


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_device_is_answered_with_an_error(shape_qemu: Build, why: str) -> None:
    """QEMU answers ``device_add`` of a device that it refuses, and runs on."""
    assert "vfio-user:hot" in plug(shape_qemu, REFUSED[why])
