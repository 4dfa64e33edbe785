"""Plans and hosts as text and as a picture."""

from xml.etree import ElementTree

import pytest

from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.kernel import Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import booted, run, set_apmask
from harness.model.ap.plan import Free, Guest, Plan, assumed_host, make_plan
from harness.model.ap.table import table_of_host, table_of_plan
from harness.report.ap_picture import table_picture
from harness.report.ap_view import host_lines, plan_lines, script, table_lines

NEW = Traits.of_version((7, 2))
# Linux Documentation/arch/s390/vfio-ap.rst.
GUESTS = [
    Guest.of("guest1", ApMatrix.of([5, 6], [4, 0xAB])),
    Guest.of("guest2", ApMatrix.of([5], [0x47, 0xFF])),
    Guest.of("guest3", ApMatrix.of([6], [0x47, 0xFF])),
]
CLASH = Guest.of("late", ApMatrix.of([5], [4]))
SVG = "{http://www.w3.org/2000/svg}"


def planned(*guests: Guest, free: Free = Free.ADAPTERS) -> Plan:
    return make_plan(guests, assumed_host(guests, NEW), free)


def test_the_table_of_the_kernel_document() -> None:
    assert table_lines(table_of_plan(planned(*GUESTS))) == [
        "domain  05 06  adapter",
        "0004     1  1",
        "0047     2  3",
        "00ab     1  1",
        "00ff     2  3",
        "",
        "1 guest1  2 guest2  3 guest3",
    ]


def test_without_queues_there_is_no_table() -> None:
    assert table_lines(table_of_plan(planned())) == ["no queues"]


def test_a_plan_has_both_syntaxes_of_masks_and_chzdev() -> None:
    text = "\n".join(plan_lines(planned(*GUESTS)))

    f = "f" * 62
    assert f"  apmask becomes 0xf9{f}" in text
    assert "echo -5,-6 > /sys/bus/ap/apmask" in text
    assert f"echo 0xf9{f} > /sys/bus/ap/apmask" in text
    assert "chzdev --type ap apmask=-5,-6" in text
    assert f"ap.apmask=0xf9{f}" in text
    assert "Conflicts: none" in text
    assert f"sysfsdev=/sys/bus/mdev/devices/{GUESTS[0].uuid}" in text


def test_a_plan_by_domains_changes_the_other_mask() -> None:
    text = "\n".join(plan_lines(planned(*GUESTS, free=Free.DOMAINS)))

    assert "chzdev --type ap aqmask=-4,-0x47,-0xab,-0xff" in text
    assert "/sys/bus/ap/apmask" not in text


def test_a_plan_by_queues_overrides_drivers() -> None:
    text = "\n".join(plan_lines(planned(CLASH, free=Free.QUEUES)))

    assert "echo vfio_ap > /sys/bus/ap/devices/05.0004/driver_override" in text
    assert "chzdev knows masks only" in text


def test_a_plan_on_a_host_that_is_ready_frees_nothing() -> None:
    ready = run(assumed_host(GUESTS, NEW), set_apmask("0x\n")).state

    text = "\n".join(plan_lines(make_plan(GUESTS, ready, Free.ADAPTERS)))

    assert "nothing to do: they are free" in text


def test_a_conflict_is_told_with_the_answer_of_the_kernel() -> None:
    text = "\n".join(plan_lines(planned(*GUESTS, CLASH)))

    assert "Conflicts: 1 write refused" in text
    assert "    EADDRINUSE: Address already in use" in text
    assert "05.0004" in text
    assert "# EADDRINUSE" in text


def test_one_write_does_for_a_whole_matrix() -> None:
    lines = plan_lines(planned(CLASH))

    assert "  echo 0x04,0x08,0x > $M/ap_config" in lines


def test_the_script_stops_at_the_first_refusal() -> None:
    lines = script(planned(*GUESTS)).splitlines()

    assert lines[:3] == [
        "#!/bin/sh", "# Not kept over a restart: see chzdev, mdevctl and virsh.", "set -e",
    ]  # fmt: skip
    assert lines[4:7] == ["# host", "modprobe vfio_ap", "echo -5,-6 > /sys/bus/ap/apmask"]
    assert sum(line.startswith("echo") for line in lines) == 1 + 3 + 4 + 3 + 3


def test_a_host_is_shown_with_remarks() -> None:
    hardware = ApHardware(cards={5: Card()}, domains=ApMask.of([4]))

    lines = host_lines(booted(hardware, NEW, apmask="0x"))

    assert lines[0] == "1 card, 1 queue, 1 of them with vfio_ap, 0 mediated devices."
    assert lines[-3:] == [
        "Remarks",
        "  note    host: 05.0004 left the host, but no mdev has them",
        "          next: assign them, or give them back",
    ]
    assert host_lines(booted(hardware, NEW))[-1] == "  none"


@pytest.mark.parametrize("guests", [GUESTS, [*GUESTS, CLASH], []])
def test_the_picture_has_a_cell_for_each_queue(guests: list[Guest]) -> None:
    table = table_of_plan(planned(*guests))

    picture = ElementTree.fromstring(table_picture(table, title="a <title> & more"))

    cells = picture.findall(f"{SVG}g")
    assert len(cells) == len(table.adapters) * len(table.domains)
    marks = [cell.findtext(f"{SVG}text") for cell in cells]
    assert marks.count("!") == (1 if CLASH in guests else 0)
    assert picture.get("aria-label") == "a <title> & more"


def test_the_picture_of_a_host_tells_free_from_reserved() -> None:
    hardware = ApHardware(cards={5: Card(), 6: Card()}, domains=ApMask.of([4]))
    state = booted(hardware, NEW, apmask="0xfb" + "f" * 62)

    picture = ElementTree.fromstring(table_picture(table_of_host(state), title="host"))

    assert [cell.findtext(f"{SVG}text") for cell in picture.findall(f"{SVG}g")] == ["-", "h"]
