"""``ap_config``: the whole assignment at once (Linux 6.10; vfio_ap_ops.c ap_config_store)."""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.model.ap.mask import ApMask

pytestmark = pytest.mark.usefixtures("needs_ap_config")
NOTHING = "0x" + 64 * "0"


def config(
    *,
    adapters: tuple[int, ...] = (),
    domains: tuple[int, ...] = (),
    control: tuple[int, ...] = (),
) -> str:
    """Return the text of an assignment."""
    return ",".join(str(ApMask.of(ids)) for ids in (adapters, domains, control))


def check_config(device: MatrixDevice, text: str) -> None:
    """The device accepts *text* and shows it again."""
    error = device.write("ap_config", text)
    assert (error, device.ap_config) == ("", text), f"{error or 'accepted'}, {device.ap_config}"


def test_three_masks_are_read(freed: Workbench) -> None:
    """ap_config shows adapters, domains and control domains as three masks on one line."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0x47), control=(0x10,))

    assert device.ap_config == config(adapters=(5, 6), domains=(4, 0x47), control=(0x10,))


def test_three_masks_are_assigned_at_once(freed: Workbench) -> None:
    """A write replaces all three."""
    device = freed.device().configure(adapters=(5,), domains=(4,), control=(4,))
    check_config(device, config(adapters=(6,), domains=(0x47, 0xAB), control=(0xFF,)))

    assert device.matrix == ("06.0047", "06.00ab")


def test_the_matrix_may_move_past_itself(freed: Workbench) -> None:
    """Removed queues are let go before new ones are linked, so ids may change places."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    check_config(device, config(adapters=(6,), domains=(4,)))

    assert device.guest_matrix == ("06.0004",)


@pytest.mark.parametrize(
    ("text", "matrix"),
    [
        ("0x04,0x08,0x", ("05.0004",)),
        ("04,08,", ("05.0004",)),
        ("0x04,0x08", ("05.0004",)),
        ("0x06,0x08,0x0", ("05.0004", "06.0004")),
    ],
)
def test_short_masks_are_padded(freed: Workbench, text: str, matrix: tuple[str, ...]) -> None:
    """Masks are padded with zeros on the right; the line end may stand for the third."""
    device = freed.device()
    error = device.write("ap_config", text)

    assert (error, device.matrix) == ("", matrix)


def check_config_refused(device: MatrixDevice, text: str, wanted: str) -> None:
    """The write gives this errno and nothing changes."""
    before = device.ap_config
    error = device.write("ap_config", text)
    assert error == wanted, f"{error or 'accepted'}, not {wanted}"
    assert device.ap_config == before, "refused, but something changed"


@pytest.mark.parametrize("text", ["", "0x04", "0xzz,0x08,0x0", "+5,+4,+4", "0x04;0x08;0x0"])
def test_fewer_than_three_masks_are_refused(freed: Workbench, text: str) -> None:
    """Fewer than three masks, or other characters than hex digits, are EINVAL."""
    device = freed.device().configure(adapters=(5,), domains=(4,))

    check_config_refused(device, text, "EINVAL")


def test_a_queue_of_the_host_is_refused(freed: Workbench) -> None:
    """A queue of the host's among the new ones: EADDRNOTAVAIL, nothing changes."""
    device = freed.device().configure(adapters=(5,), domains=(4,))

    check_config_refused(device, config(adapters=(4, 5), domains=(4,)), "EADDRNOTAVAIL")


def test_a_shared_queue_is_refused(freed: Workbench) -> None:
    """A queue of another device's among the new ones: EADDRINUSE, nothing changes."""
    freed.device().configure(adapters=(5,), domains=(0x47,))
    device = freed.device().configure(adapters=(5,), domains=(4,))

    check_config_refused(device, config(adapters=(5,), domains=(4, 0x47)), "EADDRINUSE")


@pytest.mark.parametrize(
    "text",
    [
        config(adapters=(5, 0x40)),
        config(domains=(0x50,)),
        config(control=(0xFF,)),
        config(adapters=(5,), domains=(4,), control=(0x50,)),
    ],
)
def test_ids_above_the_highest_are_refused(small: Workbench, text: str) -> None:
    """An adapter, domain or control domain above the highest id: ENODEV, nothing changes."""
    device = small.device().configure(adapters=(5,), domains=(4,))

    check_config_refused(device, text, "ENODEV")


def test_whose_a_queue_is_comes_before_the_highest_id(small: Workbench) -> None:
    """A configuration with both faults is refused for the queue of the host's."""
    device = small.device()

    check_config_refused(device, config(adapters=(4, 0x40), domains=(4,)), "EADDRNOTAVAIL")


def test_an_empty_configuration_clears_all(freed: Workbench) -> None:
    """Three empty masks take everything away."""
    device = freed.device().configure(adapters=(5,), domains=(4,), control=(4,))
    check_config(device, ",".join([NOTHING] * 3))

    assert (device.matrix, device.control_domains) == ((), ())


def test_what_is_taken_away_is_reset(freed: Workbench) -> None:
    """Queues that leave the device are zeroized, those that stay are not."""
    device = freed.device().configure(adapters=(5,), domains=(4, 0x47))
    mark = freed.instruction_mark()
    device.write("ap_config", config(adapters=(5,), domains=(4,)))

    assert freed.zapped_since(mark) == ["05.0047"]
