"""An AP host for the tests of this area: its bench, the state that a test begins with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from harness.ap.ap_host import ApHost
from harness.ap.plot import Plot
from harness.ap.spec import LABEL, inner_spec
from harness.ap.workbench import Workbench
from harness.errors import ConfigError, HarnessError
from harness.images.kernel_source import KernelSource
from harness.lab.ap import ApLab
from harness.lab.ap_plot import open_plot
from harness.lab.hosts import OFF, methods
from harness.lab.parts import Parts
from harness.machine.command import MachineSpec
from harness.machine.machine import Machine
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.mask import ApMask
from harness.settings import SETTINGS
from harness.suite_fixtures import Launch, parts_of
from harness.testing import skip


class OpenApHost(Protocol):
    """Opens an AP host for one test; see `open_ap_host`."""

    def __call__(
        self,
        *,
        modules: str = "group",
        append: str = "",
        name: str = "ap-host",
        hardware: ApHardware | None = None,
    ) -> ApHost:
        """Return the host; *append* are more words for its kernel."""


FREED = ApMask.full() - ApMask.of([5, 6])
"""apmask of the examples: adapters 5 and 6 are for guests."""


@pytest.fixture(scope="session")
def ap_lab(lab_parts: Parts, shared_evidence: Callable[[str], Path]) -> ApLab:
    """Opens AP hosts of the kernel and the QEMU of this run."""
    kernel = KernelSource.parse(lab_parts.settings.kernel)
    if kernel.is_for_x86_alone:
        skip(f"{kernel} is for x86-64", enabled_by="--kernel debian:trixie")
    wanted = lab_parts.settings.saved_state
    ways = () if wanted == OFF else methods(wanted)
    return ApLab(lab_parts.ap_host, ways=ways, work=shared_evidence("ap-lab"))


@pytest.fixture(scope="session")
def ap_host(ap_lab: ApLab, shared_evidence: Callable[[str], Path]) -> Iterator[ApHost]:
    """The AP host that tests share, with the modules that hold devices by group."""
    with contextlib.closing(
        ap_lab.open(ap_lab.spec(), evidence=shared_evidence("ap-host"))
    ) as host:
        yield host


@pytest.fixture(scope="session")
def cdev_ap_host(ap_lab: ApLab, shared_evidence: Callable[[str], Path]) -> Iterator[ApHost]:
    """An AP host with the modules that hold devices by their own file."""
    spec = ap_lab.spec(modules="cdev")
    with contextlib.closing(ap_lab.open(spec, evidence=shared_evidence("cdev-ap-host"))) as host:
        yield host


@pytest.fixture
def open_ap_host(ap_lab: ApLab, evidence: Path) -> Iterator[OpenApHost]:
    """Open an AP host for this test alone; it is as good as new and takes 0.2 s."""
    with ExitStack() as stack:

        def start(
            *,
            modules: str = "group",
            append: str = "",
            name: str = "ap-host",
            hardware: ApHardware | None = None,
        ) -> ApHost:
            place = evidence / name
            place.mkdir(parents=True, exist_ok=True)
            spec = ap_lab.spec(modules=modules, append=append, hardware=hardware)
            return stack.enter_context(contextlib.closing(ap_lab.open(spec, evidence=place)))

        yield start


@pytest.fixture(scope="session")
def workbench(ap_host: ApHost) -> Iterator[Workbench]:
    """The AP host, with vfio_ap and what holds devices by group."""
    bench = Workbench(ap_host)
    yield bench
    bench.close()


@pytest.fixture
def ap(workbench: Workbench) -> Iterator[Workbench]:
    """The AP host; every queue is the host's, there is no matrix device."""
    workbench.settle(apmask=ApMask.full(), aqmask=ApMask.full())
    yield workbench
    workbench.close_clients()


@pytest.fixture
def freed(workbench: Workbench) -> Iterator[Workbench]:
    """The AP host; adapters 5 and 6 are vfio_ap's, there is no matrix device."""
    workbench.settle(apmask=FREED, aqmask=ApMask.full())
    yield workbench
    workbench.close_clients()


@pytest.fixture
def by_domain(workbench: Workbench) -> Workbench:
    """The AP host; no domain is the host's, so that no queue moves with apmask."""
    workbench.settle(apmask=ApMask.full(), aqmask=ApMask())
    return workbench


@pytest.fixture
def by_adapter(workbench: Workbench) -> Workbench:
    """The AP host; no adapter is the host's, so that no queue moves with aqmask."""
    workbench.settle(apmask=ApMask(), aqmask=ApMask.full())
    return workbench


@pytest.fixture
def small(open_ap_host: OpenApHost) -> Iterator[Workbench]:
    """A host of its own whose highest adapter is 0x3f and whose highest domain is 0x4f."""
    hardware = ApHardware(
        cards={5: Card()}, domains=ApMask.of([4, 0x47]), control_domains=ApMask.of([4, 0x47]),
        max_adapter=0x3F, max_domain=0x4F,
    )  # fmt: skip
    bench = Workbench(open_ap_host(name="small", hardware=hardware))
    bench.settle(apmask=FREED, aqmask=ApMask.full())
    yield bench
    bench.close()


@pytest.fixture
def needs_ap_config(workbench: Workbench) -> None:
    """A kernel whose matrix devices have ``ap_config``."""
    if "ap_config" not in workbench.parent.features:
        skip("matrix devices have no ap_config here", enabled_by="Linux 6.10 or later")


@pytest.fixture
def needs_driver_override(workbench: Workbench) -> None:
    """A kernel whose queues have ``driver_override``."""
    if not workbench.bus.has_driver_override:
        skip("AP queues have no driver_override here", enabled_by="Linux 6.19 or later")


STATES = ("ap", "by_domain", "by_adapter", "freed", "plot", "by_file")
"""Fixtures that begin with a state of the masks: tests that want the same follow one another."""


ON_A_HOST = frozenset({"ap_lab", "ap_host", "cdev_ap_host", "workbench"})
"""Fixtures of tests whose results need the label."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say on every result what of the host is real."""
    ours = item.path.parent == Path(__file__).parent
    virtual = item.config.stash[SETTINGS].host == "virtual"
    wanted = ON_A_HOST | {"plot"} if virtual else ON_A_HOST
    if ours and not wanted.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.label(LABEL))


def pytest_trapline_subject(config: pytest.Config) -> Mapping[str, str]:
    """Say which kernel and which QEMU are judged on AP hosts."""
    parts = parts_of(config)
    if parts.settings.host != "virtual":
        return {}
    try:
        image = parts.ap_host
    except ConfigError:
        raise
    except HarnessError as error:  # that of the other areas may be there
        return {"AP host unknown": str(error)}
    return {
        "AP host kernel": f"{image.release} ({LABEL})",
        "QEMU in the AP host": f"{image.inner_qemu.label} {image.inner_qemu.version}",
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests of this area together that begin with the same masks: queues move slowly."""
    here = Path(__file__).parent
    ours = [at for at, item in enumerate(items) if item.path.parent == here]

    def state(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return next((at for at, name in enumerate(STATES) if name in names), len(STATES))

    for at, item in zip(ours, sorted((items[at] for at in ours), key=state), strict=True):
        items[at] = item


# -- any host ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def leased(parts: Parts, shared_evidence: Callable[[str], Path]) -> Iterator[Plot]:
    """Queues of an IBM Z host that nobody uses."""
    run = str(shared_evidence("plot"))
    with open_plot(parts.settings.host, helper=parts.images.ap_probe(), run=run) as plot:
        yield plot


@pytest.fixture
def plot(parts: Parts, request: pytest.FixtureRequest) -> Iterator[Plot]:
    """Queues that are with vfio_ap and in no device, on whatever host there is."""
    if parts.settings.host == "virtual":
        bench: Workbench = request.getfixturevalue("freed")
        found = Plot(bench.attributes, (5, 6), tuple(bench.domains))
    else:
        found = request.getfixturevalue("leased")
    yield found
    found.clear()


# -- a host whose vfio has files of devices ---------------------------------------------------


@pytest.fixture(scope="session")
def cdev_workbench(cdev_ap_host: ApHost) -> Iterator[Workbench]:
    """An AP host with the modules for iommufd."""
    bench = Workbench(cdev_ap_host)
    yield bench
    bench.close()


@pytest.fixture
def by_file(cdev_workbench: Workbench) -> Iterator[Workbench]:
    """That host; adapters 5 and 6 are vfio_ap's, there is no matrix device."""
    cdev_workbench.settle(apmask=FREED, aqmask=ApMask.full())
    yield cdev_workbench
    cdev_workbench.close_clients()


# -- a QEMU on the host -----------------------------------------------------------------------


@pytest.fixture
def launch(ap_host: ApHost, evidence: Path) -> Iterator[Launch]:
    """Start QEMU on the AP host; its guest never runs."""
    with ExitStack() as stack:

        def start(spec: MachineSpec, *, on: object = None) -> Machine:
            del on
            place = evidence / spec.name
            place.mkdir(parents=True, exist_ok=True)
            return stack.enter_context(ap_host.launch(spec, evidence=place))

        yield start


@pytest.fixture
def with_qemu(freed: Workbench) -> Workbench:
    """The freed host, for tests that start a QEMU on it."""
    return freed


@pytest.fixture(scope="module")
def resident_machine(
    ap_host: ApHost, workbench: Workbench, shared_evidence: Callable[[str], Path]
) -> Iterator[Machine]:
    """A paused machine, shared by the tests of a file; see `bare`."""
    with ap_host.launch(inner_spec("resident"), evidence=shared_evidence("inner")) as machine:
        yield machine


@pytest.fixture
def bare(with_qemu: Workbench, resident_machine: Machine) -> Iterator[Machine]:
    """A paused machine without a matrix device; what a test plugs goes with the test."""
    yield resident_machine
    plugged = resident_machine.qmp.execute("qom-list", {"path": "/machine/peripheral"})
    for name in (entry["name"] for entry in plugged if entry["name"] != "type"):
        resident_machine.remove_device(name)


@pytest.fixture
def cdev_machine(cdev_ap_host: ApHost, evidence: Path) -> Iterator[Machine]:
    """A paused machine with the iommufd backend ``io0``, on the host with files of devices."""
    spec = replace(inner_spec("cdev"), objects=("iommufd,id=io0",))
    with cdev_ap_host.launch(spec, evidence=evidence) as machine:
        yield machine
