"""Virtual functions of a physical function that vfio-pci has: who knows the token gets them."""

from collections.abc import Iterator, Sequence

import pytest

from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.resident import Resident
from harness.model.pci import Bdf, PciFunction
from harness.suite_fixtures import Attach
from harness.testing import must_fail

pytestmark = pytest.mark.full

TOKEN = "00112233-4455-6677-8899-aabbccddeeff"
"""Nobody has set it."""


@pytest.fixture
def allowed(virtual_host: VirtualHost) -> Iterator[None]:
    """vfio-pci makes virtual functions."""
    with virtual_host.parameter("vfio_pci", "enable_sriov", "Y"):
        yield


@pytest.fixture
def physical(virtual_host: VirtualHost, resident: Resident) -> Sriov:
    """The igb, in the hands of vfio-pci."""
    return Sriov(virtual_host, resident.free("igb").bdf)


def check_makes_them(function: Sriov, count: int) -> None:
    """It makes as many as it is told."""
    said = function.write("numvfs", count)
    try:
        assert not said, said
        assert len(function.virtual()) == count
    finally:
        function.write("numvfs", 0)


@pytest.mark.rule("SRV-15")
@pytest.mark.usefixtures("allowed")
def test_vfio_makes_virtual_functions(physical: Sriov) -> None:
    """With enable_sriov vfio-pci makes virtual functions itself."""
    check_makes_them(physical, 1)


@pytest.mark.negative_control("SRV-15")
def test_vfio_that_does_not_is_noticed(physical: Sriov) -> None:
    """Without it does not."""
    with must_fail():
        check_makes_them(physical, 1)


def attached(host: Host, attach: Attach, bdf: Bdf, **options: str) -> tuple[str, str]:
    """Assign the function; return what QEMU said, and what the kernel logged."""
    mark = host.kernel_log_mark()
    with host.bound(bdf):
        said = attach(host, bdf, **options)
    return said, host.kernel_log_since(mark)


def check_refused(answer: tuple[str, str], words: Sequence[str]) -> None:
    """QEMU refused, and the kernel logged why."""
    said, log = answer
    assert said, "accepted"
    assert all(word in log for word in words), log


REQUIRED = ("VF token required to access device",)
WRONG = ("Incorrect VF token provided for device",)
NEEDLESS = ("VF token incorrectly provided, PF not bound to vfio-pci",)


@pytest.fixture
def virtual(allowed: None, physical: Sriov) -> Iterator[PciFunction]:
    """A virtual function of a physical one that vfio-pci has."""
    with physical.enabled(1) as functions:
        yield functions[0]


@pytest.mark.rule("LIF-28")
@pytest.mark.negative_control("LIF-28")
def test_token_is_required(host: Host, virtual: PciFunction, attach: Attach) -> None:
    """Without a token such a virtual function is refused; not for a wrong one."""
    answer = attached(host, attach, virtual.bdf)

    check_refused(answer, REQUIRED)
    with must_fail():
        check_refused(answer, WRONG)


@pytest.mark.rule("LIF-28")
@pytest.mark.negative_control("LIF-28")
def test_token_must_be_the_right_one(host: Host, virtual: PciFunction, attach: Attach) -> None:
    """With a token that nobody has set it is refused; not for the lack of one."""
    answer = attached(host, attach, virtual.bdf, vf_token=TOKEN)

    check_refused(answer, WRONG)
    with must_fail():
        check_refused(answer, REQUIRED)


@pytest.fixture
def ordinary(host: Host, resident: Resident) -> Iterator[PciFunction]:
    """A virtual function whose physical one has its own driver."""
    bdf = resident.free("igb").bdf
    host.load_driver("igb")
    with host.bound(bdf, "igb"), Sriov(host, bdf).enabled(1) as functions:
        yield functions[0]


@pytest.mark.rule("LIF-28")
def test_token_is_not_for_every_function(
    host: Host, ordinary: PciFunction, attach: Attach
) -> None:
    """Where the physical function is not with vfio-pci a token is refused."""
    check_refused(attached(host, attach, ordinary.bdf, vf_token=TOKEN), NEEDLESS)


@pytest.mark.negative_control("LIF-28")
def test_a_function_without_token_is_noticed(
    host: Host, ordinary: PciFunction, attach: Attach
) -> None:
    """And none is needed."""
    answer = attached(host, attach, ordinary.bdf)

    with must_fail():
        check_refused(answer, NEEDLESS)
