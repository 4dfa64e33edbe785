"""An AP host as suite tests use it: its bus, its matrix devices, its adapters, put back.

Every test begins with the same cards, no matrix devices, and masks that it names; what the
test before has changed is found by looking, so that a test that changes little costs little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.ap.adapters import Adapters
from harness.ap.ap_host import ApHost
from harness.ap.attributes import AP_PROBE, Answer, Attributes, Request
from harness.ap.bus import BUS, VFIO_AP, ApBus
from harness.ap.fault import Fault
from harness.ap.instruction import Instruction, ResponseCode
from harness.ap.kernel_modules import modules_of
from harness.ap.matrix_device import UUIDS, MatrixDevice, MatrixParent
from harness.ap.removal import Removal
from harness.ap.sie import SieEntry, SyntheticExit
from harness.ap.vfio_client import VfioClient
from harness.errors import HostError
from harness.model.ap.hardware import Card
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import PASSABLE
from harness.model.ap.mask import ApMask

BUSY = int(ResponseCode.BUSY)
CHECKSTOPPED = int(ResponseCode.CHECKSTOPPED)
DECONFIGURED = int(ResponseCode.DECONFIGURED)
RESET_IN_PROGRESS = int(ResponseCode.RESET_IN_PROGRESS)

_FOR_PROGRAMS = SyntheticExit(bytes.fromhex("83000000"))
_SETTLED = {"config_time": "120", "poll_thread": "0"}
"""Attributes of the bus that tests may change, and what they are put back to."""


class Workbench:
    """See the module.

    :param system: the host; its adapters are put back to what they are now.
    """

    def __init__(self, system: ApHost) -> None:
        self.system = system
        self.adapters: Adapters = system.adapters
        self.home = self.adapters.hardware
        self.attributes = self._open_attributes()
        self.bus = ApBus(self.attributes)
        self.parent = MatrixParent(self.attributes)
        self._spare: Attributes | None = None
        self._clients: list[VfioClient] = []
        self._settled_at = self.adapters.mark
        self._at_end: list[Callable[[], object]] = []

    def close(self) -> None:
        """End the conversations."""
        self.close_clients()
        for attributes in (self.attributes, self._spare):
            if attributes is not None:
                attributes.close()

    # -- what is there ----------------------------------------------------------------------------

    @property
    def cards(self) -> list[int]:
        """Adapters of the partition."""
        return sorted(self.adapters.hardware.cards)

    @property
    def domains(self) -> list[int]:
        """Usage domains of the partition."""
        return list(self.adapters.hardware.domains)

    @property
    def control_domains(self) -> list[int]:
        """Control domains of the partition."""
        return list(self.adapters.hardware.control_domains)

    # -- a known state ----------------------------------------------------------------------------

    def settle(self, *, apmask: ApMask, aqmask: ApMask) -> None:
        """Have no matrix device, the usual cards, these masks, and every queue with its driver.

        :raise HostError: the kernel does not do it.
        """
        self.close_clients()
        while self._at_end:
            self._at_end.pop()()
        self.adapters.end_faults()
        for uuid in self.parent.uuids:
            self.attributes.must_write(f"{MatrixDevice(self.attributes, uuid).path}/remove", "1")
        if self.adapters.hardware != self.home:
            self.adapters.hardware = self.home
            self.bus.scan()
        self._heal()
        self._bind_all()
        wanted = {"apmask": str(apmask), "aqmask": str(aqmask), **_SETTLED}
        answers = self.attributes.read_all([f"{BUS}/{name}" for name in wanted])
        for (name, text), answer in zip(wanted.items(), answers, strict=True):
            if answer != Answer("", text):
                self.attributes.must_write(f"{BUS}/{name}", text)
        self._settled_at = self.adapters.mark

    def _heal(self) -> None:
        """Let vfio_ap forget resets that went wrong: it forgets with the queue."""
        strange = {
            str(one.apqn)
            for one in self.adapters.since(self._settled_at, "ZAPQ")
            if one.response_code not in PASSABLE
        }
        for queue in sorted(strange):
            if self.bus.driver(queue) == VFIO_AP:
                self.bus.unbind(queue)

    def _bind_all(self) -> None:
        # Before a mask is written: the kernel looks for the driver of a queue that has none.
        said = self.bus.read("bindings")
        if said.endswith("(complete)"):
            return
        for state in self.bus.queues.values():
            if not state.driver:
                errors = [self.bus.bind(state.name, driver=d) for d in (VFIO_AP, "cex4queue")]
                if all(errors):
                    raise HostError(f"no driver takes {state.name}: {', '.join(errors)}")

    # -- matrix devices and who has them ----------------------------------------------------------

    def device(self) -> MatrixDevice:
        """Make a matrix device; the next test does not find it."""
        taken = self.parent.uuids
        return self.parent.create(next(uuid for uuid in UUIDS if uuid not in taken))

    def client(self) -> VfioClient:
        """Start a program that can hold a device; it ends with the test."""
        client = VfioClient(self.system.transport.open([AP_PROBE, "vfio"]))
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        """End the programs that hold devices."""
        while self._clients:
            self._clients.pop().close()

    @contextlib.contextmanager
    def removing(self, device: MatrixDevice) -> Iterator[Removal]:
        """Have *device* being removed; at the end nobody has it and it is gone."""
        if self._spare is None:
            self._spare = self._open_attributes()
        removal = Removal(self._spare, device)
        try:
            yield removal
        finally:
            self.close_clients()
            removal.wait()

    def enter_sie(self, client: VfioClient) -> SieEntry:
        """Run the processor of the client's machine; return what it could use when it began.

        It comes back with an instruction that KVM leaves to programs: a DIAGNOSE of no meaning.
        """
        with self.system.sie().entries(_FOR_PROGRAMS) as entries:
            client.do("run")
        return entries[0]

    def unload_vfio_ap(self) -> str:
        """Unload the driver; return what was said against it. The next test finds it loaded."""
        done = self.system.run(["rmmod", "vfio_ap"], check=False)
        if not done.exit_status:
            self.put_back_with(self.load_vfio_ap)
        return done.stderr

    def load_vfio_ap(self) -> None:
        """Load the driver, unless it is loaded."""
        if not self.system.exists("/sys/module/vfio_ap"):
            modules = modules_of(self.system.transport, self.system.spec.modules)
            self.system.run(["insmod", modules[-1]])

    def put_back_with(self, action: Callable[[], object]) -> None:
        """Have *action* done before the next test."""
        self._at_end.append(action)

    # -- the machine changes ----------------------------------------------------------------------

    def plug(
        self, adapter: int, *, hwtype: int = 13, domains: Iterable[int] | None = None
    ) -> None:
        """Give the partition a card, or another in place of one; the bus has seen it."""
        hardware = self.adapters.hardware.plugged(adapter, Card(hwtype))
        if domains is not None:
            hardware = replace(hardware, domains=ApMask.of(domains))
        self.adapters.hardware = hardware
        self.bus.scan()

    def unplug(self, adapter: int) -> None:
        """Take a card from the partition; the bus has seen it."""
        self.adapters.unplug(adapter)
        self.bus.scan()

    def set_domains(self, domains: Iterable[int]) -> None:
        """Give the partition these usage domains; the bus has seen it."""
        self.adapters.set_domains(domains)
        self.bus.scan()

    def set_control_domains(self, domains: Iterable[int]) -> None:
        """Give the partition these control domains; the bus has seen it."""
        self.adapters.set_control_domains(domains)
        self.bus.scan()

    def deconfigure(self, adapter: int) -> None:
        """Deconfigure a card; the bus has seen it."""
        self.adapters.change_card(adapter, configured=False)
        self.bus.scan()

    def checkstop(self, adapter: int) -> None:
        """Check-stop a card; the bus has seen it."""
        self.adapters.change_card(adapter, checkstopped=True)
        self.bus.scan()

    def fault(self, queue: str, code: int, *, instruction: str, times: int) -> None:
        """Let *queue* answer an instruction with *code*, so many times."""
        self.adapters.inject(Fault(code, on=instruction, apqn=Apqn.parse(queue), times=times))

    def free(self, *adapters: int) -> None:
        """Give *adapters* to vfio_ap, there or not.

        :raise HostError: the kernel refuses it.
        """
        text = ",".join(f"-{adapter:#x}" for adapter in adapters)
        self.attributes.must_write(f"{BUS}/apmask", text)

    # -- what the adapters were asked -------------------------------------------------------------

    def instruction_mark(self) -> int:
        """Return a moment for `zapped_since` and `count_since`."""
        return self.adapters.mark

    def zapped_since(self, mark: int) -> list[str]:
        """Return the queues that were zeroized, each once, in order of their names."""
        return sorted({str(one.apqn) for one in self._since(mark, "ZAPQ")})

    def count_since(self, mark: int, name: str, queue: str) -> int:
        """Return how often *queue* was given the instruction *name*."""
        return sum(str(one.apqn) == queue for one in self._since(mark, name))

    def _since(self, mark: int, name: str) -> tuple[Instruction, ...]:
        return self.adapters.since(mark, name)

    # -- the kernel -------------------------------------------------------------------------------

    def log_mark(self) -> int:
        """Return a moment for `log_since`."""
        return self.system.kernel_log_mark()

    def log_since(self, mark: int) -> str:
        """Return what the kernel logged since then."""
        return self.system.kernel_log_since(mark)

    def override(self, queue: str, driver: str) -> str:
        """Write ``driver_override`` of *queue* and let it be probed; return the errno."""
        path = f"{BUS}/devices/{queue}/driver_override"
        error = self.attributes.write(path, driver)
        if not error:
            self.put_back_with(lambda: self._release(queue))
            self._reprobe(queue)
        return error

    def _release(self, queue: str) -> None:
        self.attributes.must_write(f"{BUS}/devices/{queue}/driver_override", "")
        self._reprobe(queue)

    def _reprobe(self, queue: str) -> None:
        driver = self.bus.driver(queue)
        if driver:
            self.bus.unbind(queue, driver=driver)
        self.attributes.batch([Request(f"{BUS}/drivers_probe", queue)])

    def _open_attributes(self) -> Attributes:
        conversation = self.system.transport.open([AP_PROBE, "sysfs"])
        return Attributes(conversation, where=self.system.name)


__all__ = [
    "BUSY",
    "CHECKSTOPPED",
    "DECONFIGURED",
    "RESET_IN_PROGRESS",
    "Workbench",
]
