"""Devices of the world, written in Python, in front of QEMU: directly, and behind a real kernel.

=================  =============================================================================
``bench``          every named shape in one machine without a processor (vfio-user)
``serve_to_qemu``  starts another such machine, with what a test gives it
``qemu_says``      the same for one device that QEMU may refuse; returns what it said
``shape_host``     a virtual host with shapes: `PLAIN` and `SPECIAL` name them
``plain``          a machine on it: `PLAIN`, assigned with vfio-pci as they are
``special``        another one: `SPECIAL`, with x-vga, without GeForce quirks, relocated
``spare_machine``  starts another one, with `SPARE`
``ati_vga``        a third one, with the ATI card and x-vga
=================  =============================================================================

The QEMU that a shape is served to is the one under test if it has ``vfio-user-pci``, else one
that has; on the kernel's way it is always the one under test that is judged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from harness.errors import HostError, LaunchFailed
from harness.guest.keys import RunKey
from harness.images.qemu_build import QemuBuild
from harness.lab.parts import Parts
from harness.lab.shape_host import ShapeHost, ShapeMachine, open_shape_host
from harness.lab.vfio_user import parts_with_devices
from harness.machine.command import Device, Options
from harness.model.vfio.mapping import VfioOptions
from harness.shapes.builds import first_with_vfio_user
from harness.shapes.named.bench import Guest, NamedBench, named_bench
from harness.shapes.named.catalogue import NAMED

SERVED = "device modelled (vfio-user), QEMU real"
BEHIND_LINUX = "device modelled (vfio-user), host kernel and QEMU real"

PLAIN: Mapping[str, tuple[str, VfioOptions]] = {
    "nvidia": ("nvidia", VfioOptions()),
    "nvidia-3d": ("nvidia-3d", VfioOptions()),
    "ati": ("ati", VfioOptions()),
    "rtl8168": ("rtl8168", VfioOptions()),
    "igd-9": ("igd-9", VfioOptions()),
    "igb-pf": ("igb-pf", VfioOptions()),
    "small": ("small", VfioOptions()),
    "xl710": ("xl710", VfioOptions()),
    "qat-vf": ("qat-vf", VfioOptions()),
}
"""Name in the machine to shape and options."""
SPECIAL: Mapping[str, tuple[str, VfioOptions]] = {
    "nvidia-vga": ("nvidia", VfioOptions(vga=True)),
    "nvidia-off": ("nvidia", VfioOptions(no_geforce_quirks=True)),
    "rtl8168-moved": ("rtl8168", VfioOptions(msix_relocation=2)),
    "igd-12": ("igd-12", VfioOptions(igd_gms=True)),
}
NO_IOEVENTFD: Options = {"x-no-kvm-ioeventfd": True}
ATI_VGA: Mapping[str, tuple[str, VfioOptions]] = {"ati-vga": ("ati", VfioOptions(vga=True))}
"""A machine of its own: of two with x-vga the legacy ranges show one only."""

SPARE = "qat-pf"
"""In none of them: for tests that start a machine of their own (`spare_machine`)."""

SharedEvidence = Callable[[str], Path]


class ServeToQemu(Protocol):
    """Starts a machine with served devices; see `serve_to_qemu`."""

    def __call__(
        self, *guests: Guest, others: Sequence[Device] = (), extra: Sequence[str] = ()
    ) -> NamedBench:
        """Return it, BARs programmed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say on every row of this suite what is modelled."""
    here = __file__.rpartition("/")[0]
    for item in items:
        names = getattr(item, "fixturenames", ())
        for fixture, label in (("shape_host", BEHIND_LINUX), ("bench_build", SERVED)):
            if str(item.path).startswith(here) and fixture in names:
                item.add_marker(pytest.mark.label(label))


@pytest.fixture(scope="session")
def bench_build(parts: Parts) -> QemuBuild:
    """The build that shapes are served to."""
    settings = parts.settings
    return first_with_vfio_user([settings.qemu, settings.l0_qemu], parts.images.workshop)


@pytest.fixture(autouse=True)
def _named_on_the_row(
    request: pytest.FixtureRequest,
) -> None:
    if "bench_build" in request.fixturenames:
        build: QemuBuild = request.getfixturevalue("bench_build")
        row = ("subject.QEMU under test", f"{build.label} {build.version}")
        request.node.user_properties.append(row)


@pytest.fixture(scope="session")
def bench(bench_build: QemuBuild, shared_evidence: SharedEvidence) -> Iterator[NamedBench]:
    """Every named shape in one machine."""
    guests = [Guest(name, shape.device()) for name, shape in NAMED.items()]
    with named_bench(bench_build, guests, evidence=shared_evidence("named-bench")) as machine:
        yield machine


@pytest.fixture
def serve_to_qemu(bench_build: QemuBuild, evidence: Path) -> Iterator[ServeToQemu]:
    """Start a machine with served devices; it ends with the test."""
    with ExitStack() as stack:

        def start(
            *guests: Guest, others: Sequence[Device] = (), extra: Sequence[str] = ()
        ) -> NamedBench:
            return stack.enter_context(
                named_bench(bench_build, guests, evidence=evidence, others=others, extra=extra)
            )

        yield start


@pytest.fixture
def qemu_says(serve_to_qemu: ServeToQemu) -> Callable[[Guest], str]:
    """Serve a device; return what QEMU says as it ends, or what it said when it is up."""

    def said(guest: Guest) -> str:
        try:
            return f"accepted: {serve_to_qemu(guest).machine.stderr()}"
        except LaunchFailed as refusal:
            if refusal.exit_status != 1:
                pytest.fail(f"QEMU did not refuse, it ended with {refusal.exit_status}")
            return refusal.stderr

    return said


@dataclass(frozen=True)
class Prepared:
    """The virtual host with shapes, and what was seen while it was set up."""

    there: ShapeHost
    denied: str
    """What Linux logged when vfio-pci was to take the QAT functions, before it might."""


@pytest.fixture(scope="session")
def shape_host(
    lab_parts: Parts, run_key: RunKey, shared_evidence: SharedEvidence
) -> Iterator[Prepared]:
    """The virtual host with all of `PLAIN`, `SPECIAL` and `ATI_VGA`, and `SPARE`."""
    chosen = {**PLAIN, **SPECIAL, **ATI_VGA, SPARE: (SPARE, VfioOptions())}
    shapes = {name: NAMED[shape] for name, (shape, _) in chosen.items()}
    place = shared_evidence("shape-host")
    with contextlib.closing(
        open_shape_host(parts_with_devices(lab_parts), shapes, key=run_key, evidence=place)
    ) as there:
        mark = there.host.kernel_log_mark()
        for name in (SPARE, "qat-vf"):
            with contextlib.suppress(HostError):
                there.bound(name)
        denied = there.host.kernel_log_since(mark)
        there.host.run("rmmod vfio_pci && modprobe vfio_pci disable_denylist=1")
        yield Prepared(there, denied)


@contextlib.contextmanager
def _machine(
    prepared: Prepared,
    chosen: Mapping[str, tuple[str, VfioOptions]],
    place: Path,
    rom: Sequence[str] = (),
    properties: Mapping[str, Options] | None = None,
) -> Iterator[ShapeMachine]:
    each = {name: options for name, (_, options) in chosen.items()}
    with prepared.there.machine(each, evidence=place, rom=rom, properties=properties) as machine:
        yield machine


@pytest.fixture(scope="session")
def plain(shape_host: Prepared, shared_evidence: SharedEvidence) -> Iterator[ShapeMachine]:
    """The machine with `PLAIN`; the ROM of igb-pf is switched on."""
    with _machine(shape_host, PLAIN, shared_evidence("shapes-plain"), ["igb-pf"]) as machine:
        yield machine


@pytest.fixture(scope="session")
def special(shape_host: Prepared, shared_evidence: SharedEvidence) -> Iterator[ShapeMachine]:
    """The machine with `SPECIAL`; writes to its NVIDIA card never move to the kernel."""
    place, properties = shared_evidence("shapes-special"), {"nvidia-vga": NO_IOEVENTFD}
    with _machine(shape_host, SPECIAL, place, properties=properties) as machine:
        yield machine


@pytest.fixture(scope="session")
def ati_vga(shape_host: Prepared, shared_evidence: SharedEvidence) -> Iterator[ShapeMachine]:
    """The machine with an ATI card and x-vga."""
    with _machine(shape_host, ATI_VGA, shared_evidence("shapes-ati-vga")) as machine:
        yield machine


class SpareMachine(Protocol):
    """Starts a machine with `SPARE`; see `spare_machine`."""

    def __call__(self, name: str = "spare") -> ShapeMachine:
        """Return it, BARs programmed; *name*: of its evidence."""


@pytest.fixture
def spare_machine(shape_host: Prepared, evidence: Path) -> Iterator[SpareMachine]:
    """Start a machine with `SPARE`; it ends with the test."""
    with ExitStack() as stack:

        def start(name: str = "spare") -> ShapeMachine:
            place = evidence / name
            place.mkdir()
            chosen = {SPARE: (SPARE, VfioOptions())}
            return stack.enter_context(_machine(shape_host, chosen, place))

        yield start
