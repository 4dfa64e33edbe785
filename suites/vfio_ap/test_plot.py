"""The rules that hold on any host, on queues that nobody uses.

On the AP host of the lab these are the queues of the examples. On an IBM Z host (``--host
ssh://…``) they are queues that vfio_ap has and no matrix device; masks and drivers stay as they
are, and what is made is written down first.
"""

from __future__ import annotations

import pytest

from harness.ap.plot import Plot
from harness.testing import must_fail
from suites.vfio_ap.test_assignment import check_error, check_no_control, check_prefixes


def names(plot: Plot) -> tuple[str, ...]:
    """Return every queue of the plot."""
    return tuple(f"{a:02x}.{d:04x}" for a in plot.adapters for d in plot.domains)


def check_whole(plot: Plot, wanted: tuple[str, ...]) -> None:
    """A device with all of the plot has exactly *wanted*, and a guest gets it."""
    device = plot.device().configure(adapters=plot.adapters, domains=plot.domains)
    assert device.matrix == wanted, " ".join(device.matrix)
    assert device.guest_matrix == wanted, " ".join(device.guest_matrix)


@pytest.mark.rule("AP-01", "AP-02", "AP-12")
def test_a_device_has_adapters_times_domains(plot: Plot) -> None:
    """matrix and guest_matrix are the product of adapters and domains."""
    check_whole(plot, names(plot))


@pytest.mark.negative_control("AP-01", "AP-02", "AP-12")
def test_a_missing_queue_is_noticed(plot: Plot) -> None:
    """One queue fewer is expected."""
    with must_fail():
        check_whole(plot, names(plot)[1:])


@pytest.mark.rule("AP-10")
def test_adapters_alone_are_prefixes(plot: Plot) -> None:
    """Without a domain ``matrix`` shows the adapters alone."""
    device = plot.device().configure(adapters=plot.adapters)

    check_prefixes(device, tuple(f"{adapter:02x}." for adapter in plot.adapters))


@pytest.mark.rule("AP-11")
def test_no_control_domain_comes_by_itself(plot: Plot) -> None:
    """Usage domains bring no control domains."""
    device = plot.device().configure(adapters=plot.adapters, domains=plot.domains)

    check_no_control(device)


@pytest.mark.rule("AP-07", "AP-08")
def test_a_queue_is_in_one_device(plot: Plot) -> None:
    """A second device cannot have a queue of the first: EADDRINUSE."""
    plot.device().configure(adapters=plot.adapters, domains=plot.domains)
    other = plot.device().configure(domains=plot.domains[:1])

    check_error(other, "assign_adapter", hex(plot.adapters[0]), "EADDRINUSE")


@pytest.mark.rule("AP-07")
def test_the_highest_id_is_the_last(plot: Plot) -> None:
    """An id above ap_max_adapter_id is ENODEV."""
    highest = int(plot.bus.read("ap_max_adapter_id"))

    check_error(plot.device(), "assign_adapter", str(highest + 1), "ENODEV")


@pytest.mark.negative_control("AP-07", "AP-10", "AP-11")
def test_what_there_is_is_noticed(plot: Plot) -> None:
    """The highest id is there; a queue is no prefix; an assigned control domain is shown.

    On an IBM Z host this is the only control of these checks.
    """
    device = plot.device().configure(
        adapters=plot.adapters[:1], domains=plot.domains[:1], control=plot.domains[:1]
    )
    highest = plot.bus.read("ap_max_adapter_id")

    with must_fail():
        check_prefixes(device, (f"{plot.adapters[0]:02x}.",))
    with must_fail():
        check_no_control(device)
    with must_fail():
        check_error(plot.device(), "assign_adapter", highest, "ENODEV")


def test_a_queue_says_that_it_is_assigned(plot: Plot) -> None:
    """``status`` of a queue follows its device."""
    queue = names(plot)[0]
    device = plot.device().configure(adapters=plot.adapters, domains=plot.domains)
    assigned = plot.bus.status(queue)
    device.remove()

    assert (assigned, plot.bus.status(queue)) == ("assigned", "unassigned")


def test_a_configuration_is_read_and_written(plot: Plot) -> None:
    """What ``ap_config`` of one device says makes another the same."""
    device = plot.device().configure(adapters=plot.adapters, domains=plot.domains)
    text = device.ap_config
    device.remove()
    other = plot.device()

    assert (other.write("ap_config", text), other.matrix) == ("", names(plot))
