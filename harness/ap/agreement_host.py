"""An AP host under comparison with its model, from a bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.ap.attributes import Answer, Request
from harness.ap.bus import BUS
from harness.ap.matrix_device import MatrixDevice
from harness.ap.vfio_client import VfioClient
from harness.ap.workbench import Workbench
from harness.model.ap.hardware import ApHardware
from harness.model.ap.kernel import ApKernel, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.operation import booted


class BenchHost:
    """A `harness.ap.agreement.ComparedHost`."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._open: dict[str, VfioClient] = {}

    def start(self) -> ApKernel:
        """Have the host in a known state; return the model of it."""
        bench = self._bench
        self._open.clear()
        bench.settle(apmask=ApMask.full(), aqmask=ApMask.full())
        version = bench.system.kernel
        state = booted(bench.home, Traits.of_version((version.major, version.minor)))
        return replace(state, config_time=int(bench.attributes.read(f"{BUS}/config_time")))

    def batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Read and write attributes."""
        return self._bench.attributes.batch(requests)

    def links(self, paths: Sequence[str]) -> list[str]:
        """Return the last names of links."""
        return self._bench.attributes.links(paths)

    def set_hardware(self, hardware: ApHardware) -> None:
        """Change the machine."""
        self._bench.adapters.hardware = hardware

    def open(self, uuid: str) -> str:
        """Open a matrix device in a virtual machine of its own; return the errno."""
        client, device = self._bench.client(), MatrixDevice(self._bench.attributes, uuid)
        client.open_group(device)
        client.make_machine()
        error = client.take(device)
        if error:
            client.close()
        else:
            self._open[uuid] = client
        return error

    def reset(self, uuid: str) -> str:
        """Reset one that is open; return the errno."""
        return self._open[uuid].reset()

    def let_go(self, uuid: str) -> None:
        """Close one that is open."""
        self._open.pop(uuid).close()
