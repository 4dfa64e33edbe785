"""The vocabulary of the suites: a host, machines on it, a nested guest, assigned functions.

========================  =======================================================================
``host``                  the box under test; virtual unless ``--host`` says otherwise
``launch``                starts the QEMU under test on the host; ended when the test ends
``refusal``               starts it with something it must refuse; returns what it said
``attempt``               starts it with something it may refuse; returns what it said, if anything
``attach``                the same, with one function assigned
``nested``                the resident nested guest with every test device assigned (shared)
``assigned``              one device of the resident guest; parametrised over all of them
``another_host``          opens a virtual host with another IOMMU, or without
``zoo``                   a machine with firmware only that has one of each shape of device,
                          on a virtual host of its own
``firmware_only``         starts a machine without an operating system, devices assigned in a
                          special way; the resident guest goes first
========================  =======================================================================

What a test may need of the host, and skip without, is in `harness.suite_needs`.

Expensive things are made when a test first asks for them and live as long as their scope.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from harness.errors import HostError, LaunchFailed, MissingDevice, QmpFailed
from harness.guest.keys import RunKey, make_key
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import TEST_DEVICES, assigned_device, nested_spec
from harness.images.images import Images
from harness.lab.assigned import Assigned
from harness.lab.hosts import OFF, check_host_answers, methods, open_host, open_virtual
from harness.lab.nested import WHO_HAS_IT, Nested
from harness.lab.parts import Parts, check_host_word
from harness.lab.resident import Properties, Resident
from harness.lab.states import cap_of
from harness.lab.zoo import open_zoo
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.model.pci import PciFunction
from harness.model.vfio.mapping import VfioOptions
from harness.report.build_progress import build_progress
from harness.report.rundir import RUN
from harness.settings import SETTINGS

PARTS = pytest.StashKey[Parts]()
WENT_WRONG = pytest.StashKey[bool]()
"""Set on a test whose body failed or erred."""

Free = Callable[[str], PciFunction]


class AnotherHost(Protocol):
    """Opens a virtual host of another kind; see `another_host`."""

    def __call__(
        self, name: str, iommu: Device | None, *, devices: Sequence[str] | None = None
    ) -> AbstractContextManager[VirtualHost]:
        """Return it; *name* is that of its evidence, *devices* None means all."""


class Launch(Protocol):
    """Starts the QEMU under test; see `launch`."""

    def __call__(self, spec: MachineSpec, *, on: Host | None = None) -> Machine:
        """Return the machine; *on* is another host than ``host``."""


class Refusal(Protocol):
    """Starts a machine that QEMU must refuse; see `refusal`."""

    def __call__(self, spec: MachineSpec, *, on: Host | None = None) -> str:
        """Return what it said; *on* is another host than ``host``."""


class Attempt(Protocol):
    """Starts a machine that may be refused; see `attempt`."""

    def __call__(self, host: Host, spec: MachineSpec) -> str:
        """Return what QEMU said, '' if it started."""


class Attach(Protocol):
    """Assigns a function of a host to a machine of its own; see `attach`."""

    def __call__(self, host: Host, bdf: object, **options: str) -> str:
        """Return what QEMU said, '' if it started."""


class RefusedCommand(Protocol):
    """Gives a QMP command that QEMU must refuse; see `refused_command`."""

    def __call__(self, machine: Machine, command: str, **arguments: object) -> QmpFailed:
        """Return the error."""


class FirmwareOnly(Protocol):
    """Starts a machine that runs firmware only; see `firmware_only`."""

    def __call__(
        self,
        *names: str,
        properties: Mapping[str, str | int | bool] | None = None,
        options: VfioOptions | None = None,
        each: Mapping[str, VfioOptions] | None = None,
        more: Mapping[str, Properties] | None = None,
    ) -> Nested:
        """Return the machine when every BAR is programmed."""


def parts_of(config: pytest.Config) -> Parts:
    """Return the images and builds of this run."""
    if PARTS not in config.stash:
        config.stash[PARTS] = Parts(config.stash[SETTINGS])
    return config.stash[PARTS]


def subject_of(config: pytest.Config) -> Mapping[str, str]:
    """Return what is judged, for the header and every result; builds what is missing."""
    check_host_word(config.stash[SETTINGS].host)
    check_host_answers(config.stash[SETTINGS].host)
    if config.stash[SETTINGS].saved_state != OFF:
        methods(config.stash[SETTINGS].saved_state)
        cap_of(os.environ)
    with _shown(config), build_progress() as progress:
        parts = config.stash[PARTS] = Parts(config.stash[SETTINGS], Images(progress=progress))
        parts.gather()
    run = config.stash.get(RUN, None)
    work = run.path if run is not None else Path(config.rootpath)
    facts = {
        "QEMU under test": f"{parts.qemu.label} {parts.qemu.version}",
        "guest kernel": parts.guest.release,
        "host": parts.settings.host,
    }
    if parts.settings.host == "virtual":
        accelerator = parts.accelerator(work)
        facts |= {
            "host kernel": parts.kernel.release,
            "lab QEMU": f"{parts.l0_qemu.label} {parts.l0_qemu.version}",
            "accelerator": f"{accelerator.accel.value} ({accelerator.reason})",
            "devices": f"emulated: {', '.join(parts.devices)}",
        }
    return facts


def _shown(config: pytest.Config) -> AbstractContextManager[None]:
    """Let what is printed inside be seen: pytest captures output already."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:
        return contextlib.nullcontext()
    shown: AbstractContextManager[None] = capture.global_and_fixture_disabled()
    return shown


# -- session: made once per worker ------------------------------------------------------------


@pytest.fixture(scope="session")
def parts(pytestconfig: pytest.Config) -> Parts:
    """Images and builds of this run."""
    return parts_of(pytestconfig)


@pytest.fixture(scope="session")
def run_key(tmp_path_factory: pytest.TempPathFactory) -> RunKey:
    """The SSH key of this worker."""
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="session")
def shared_evidence(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Make a directory for the evidence of something that several tests share."""
    run = pytestconfig.stash.get(RUN, None)
    base = run.path / "shared" if run is not None else tmp_path_factory.mktemp("shared")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")

    def make(name: str) -> Path:
        place = base / worker / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    return make


@pytest.fixture(scope="session")
def host(parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]) -> Iterator[Host]:
    """The host, with everything put back at the end."""
    opened = open_host(parts, key=run_key, evidence=shared_evidence("host"))
    try:
        yield opened
    finally:
        place = shared_evidence("host")
        try:
            (place / "dmesg.log").write_text(opened.kernel_log(), encoding="utf-8")
        finally:
            opened.close()


@pytest.fixture(scope="session")
def another_host(
    parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]
) -> AnotherHost:
    """Open a virtual host with another IOMMU, or without; closed at the end of its ``with``."""

    def opened(
        name: str, iommu: Device | None, *, devices: Sequence[str] | None = None
    ) -> AbstractContextManager[VirtualHost]:
        evidence = shared_evidence(name)
        return contextlib.closing(
            open_virtual(parts, key=run_key, evidence=evidence, iommu=iommu, devices=devices)
        )

    return opened


@pytest.fixture(scope="session")
def device_names(parts: Parts, host: Host) -> tuple[str, ...]:
    """Names of the test devices that the host has."""
    present = {function.id for function in host.functions()}
    names = tuple(name for name, device in TEST_DEVICES.items() if device.id in present)
    lost = set(parts.devices) - set(names)
    if isinstance(host, VirtualHost) and lost:
        raise HostError(
            f"the virtual host does not show {', '.join(sorted(lost))}, which its QEMU was given",
            evidence=host.machine.evidence,
        )
    return names


@pytest.fixture(scope="session")
def resident(
    host: Host,
    device_names: tuple[str, ...],
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[Resident]:
    """Keeper of the resident nested guest."""

    def open_with_guest(spec: MachineSpec, evidence: Path) -> VirtualHost:
        return open_virtual(parts, key=run_key, evidence=evidence, nested=spec)

    saved = isinstance(host, VirtualHost) and parts.settings.saved_state != OFF
    keeper = Resident(host, device_names, shared_evidence, open_with_guest if saved else None)
    try:
        yield keeper
    finally:
        keeper.close()


@pytest.fixture
def nested(resident: Resident, evidence: Path, request: pytest.FixtureRequest) -> Iterator[Nested]:
    """The resident nested guest: booted, every test device assigned. Do not break it.

    A test that does not pass may have: then the next one gets a new guest.
    """
    if not resident.names:
        raise MissingDevice("the host has no test device at all", hint=WHO_HAS_IT)
    guest = resident.get()
    guest.machine.evidence_for(evidence)
    yield guest
    if request.node.stash.get(WENT_WRONG, False):
        resident.end(guest)


@pytest.fixture
def firmware_only(resident: Resident, evidence: Path) -> FirmwareOnly:
    """Start a machine that runs firmware only, with devices assigned in a special way.

    ``firmware_only("nvme", properties={"x-no-mmap": True}, options=VfioOptions(no_mmap=True))``,
    or ``firmware_only(each={"nvme": VfioOptions(msix_relocation=2), "edu": VfioOptions()})``;
    *more* are further properties of single devices.
    Asked for the same again, in this test or the next, it returns the same machine.
    """

    def start(
        *names: str,
        properties: Mapping[str, str | int | bool] | None = None,
        options: VfioOptions | None = None,
        each: Mapping[str, VfioOptions] | None = None,
        more: Mapping[str, Properties] | None = None,
    ) -> Nested:
        started = resident.firmware_only((*names, *(each or {})), properties, options, each, more)
        started.machine.evidence_for(evidence)
        return started

    return start


@pytest.fixture(scope="session")
def zoo(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[Nested]:
    """A machine with firmware only that has one of each shape of device (`harness.host.zoo`)."""
    opened = open_zoo(parts, key=run_key, evidence=shared_evidence("zoo"))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def free(resident: Resident) -> Free:
    """Return a test device, by name, that is bound to vfio-pci and in no machine.

    The machine that had it goes.
    """
    return resident.free


# -- function ---------------------------------------------------------------------------------


@pytest.fixture
def launch(host: Host, evidence: Path) -> Iterator[Launch]:
    """Start a machine on the host; its evidence lies beside the test's."""
    with ExitStack() as stack:

        def start(spec: MachineSpec, *, on: Host | None = None) -> Machine:
            place = evidence / spec.name
            place.mkdir(parents=True, exist_ok=True)
            return stack.enter_context((on or host).launch(spec, evidence=place))

        yield start


@pytest.fixture
def refusal(launch: Launch) -> Refusal:
    """Start a machine that QEMU must refuse; return what it said.

    Fails the test if QEMU accepts it.
    """

    def refused(spec: MachineSpec, *, on: Host | None = None) -> str:
        try:
            machine = launch(spec, on=on)
        except LaunchFailed as said:
            if said.exit_status != 1:
                pytest.fail(
                    f"QEMU did not refuse, it ended with {said.exit_status}: {said.stderr}"
                )
            return said.stderr
        pytest.fail(
            f"QEMU accepted what it must refuse; status {machine.qmp.execute('query-status')}"
        )

    return refused


def attaching(host: Host, bdf: object, **options: str) -> MachineSpec:
    """Return a machine to which the function at *bdf* is assigned; it never runs."""
    spec = nested_spec(
        accel=host.accelerator.option,
        assigned=[assigned_device("nvme", str(bdf), options=options)],
        memory_mib=64,  # all of it is pinned
        name="attempt",
    )
    return replace(spec, paused=True)


@pytest.fixture
def attempt(evidence: Path) -> Attempt:
    """Start a machine on any host; return what QEMU said if it refused, empty if it did not.

    A machine that starts is ended again.
    """

    def start(host: Host, spec: MachineSpec) -> str:
        place = evidence / f"{spec.name}-{host.name}"
        place.mkdir(parents=True, exist_ok=True)
        try:
            with host.launch(spec, evidence=place):
                return ""
        except LaunchFailed as error:
            return error.stderr or error.summary

    return start


@pytest.fixture
def attach(attempt: Attempt) -> Attach:
    """Assign a function of a host to a machine; return what QEMU said against it.

    ``attach(host, bdf, iommufd="backend")`` makes the backend too; other words are properties
    of the vfio-pci device, with ``_`` for ``-``.
    """

    def start(host: Host, bdf: object, **options: str) -> str:
        words = {name.replace("_", "-"): value for name, value in options.items()}
        spec = attaching(host, bdf, **words)
        backends = tuple(f"iommufd,id={name}" for name in (options.get("iommufd"),) if name)
        return attempt(host, replace(spec, objects=backends))

    return start


@pytest.fixture
def refused_command() -> RefusedCommand:
    """Give a QMP command that QEMU must refuse; fails the test if QEMU accepts it.

    ``_`` in the name of an argument stands for ``-``.
    """

    def refused(machine: Machine, command: str, **arguments: object) -> QmpFailed:
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            answer = machine.qmp.execute(command, words)
        except QmpFailed as said:
            if not said.error_class:  # no answer is not a no
                raise
            return said
        pytest.fail(f"QEMU accepted {command} {words}, which it must refuse; answer {answer}")

    return refused


@pytest.fixture(params=sorted(TEST_DEVICES))
def assigned(request: pytest.FixtureRequest, nested: Nested) -> Assigned:
    """One device of the resident guest; the test is repeated for each.

    Narrow it with ``@pytest.mark.parametrize("assigned", ["nvme"], indirect=True)``.
    """
    name: str = request.param
    return nested.assigned[name]


@pytest.fixture
def never_read(resident: Resident) -> None:
    """Have a resident guest whose flat views nobody has read; name it before ``assigned``."""
    resident.never_read()
