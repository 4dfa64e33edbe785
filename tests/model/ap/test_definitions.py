"""Definitions for libvirt and mdevctl: what is written can be read, and what is wrong is told."""

import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.ap.definitions import (
    attributes,
    hostdev_xml,
    matrix_of,
    mdevctl_json,
    nodedev_problems,
    nodedev_xml,
    read_mdevctl,
    read_nodedev,
)
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.plan import Guest

some = st.sets(st.integers(0, 255), max_size=5)
guests = st.builds(Guest.of, st.just("g"), st.builds(ApMatrix.of, some, some, some))
GUEST = Guest(
    "guest1", ApMatrix.of([5, 6], [4, 0xAB], [4]), "62177883-f1bb-47f0-914d-32a22e3a8804"
)
# virsh nodedev-define, as libvirt documents it for mediated devices of vfio_ap.
XML = """\
<device>
  <name>mdev_62177883_f1bb_47f0_914d_32a22e3a8804_matrix</name>
  <parent>ap_matrix</parent>
  <capability type='mdev'>
    <type id='vfio_ap-passthrough'/>
    <uuid>62177883-f1bb-47f0-914d-32a22e3a8804</uuid>
    <attr name='assign_adapter' value='0x05'/>
    <attr name='assign_adapter' value='0x06'/>
    <attr name='assign_domain' value='0x0004'/>
    <attr name='assign_domain' value='0x00ab'/>
    <attr name='assign_control_domain' value='0x0004'/>
  </capability>
</device>
"""


@pytest.mark.rule("AP-26")
def test_a_definition_for_libvirt() -> None:
    assert nodedev_xml(GUEST) == XML


@pytest.mark.rule("AP-26")
@given(guests)
def test_definitions_say_what_they_were_made_of(guest: Guest) -> None:
    xml, text = nodedev_xml(guest), mdevctl_json(guest)

    assert nodedev_problems(xml) == ()
    assert read_nodedev(xml).matrix == guest.matrix
    assert read_nodedev(xml).uuid == guest.uuid
    assert read_mdevctl(text) == (guest.matrix, "auto")
    assert matrix_of(list(attributes(guest.matrix))) == guest.matrix


def test_a_definition_for_mdevctl_lists_attributes_in_the_order_they_are_written() -> None:
    assert json.loads(mdevctl_json(GUEST, start="manual")) == {
        "mdev_type": "vfio_ap-passthrough",
        "start": "manual",
        "attrs": [
            {"assign_adapter": "0x05"},
            {"assign_adapter": "0x06"},
            {"assign_domain": "0x0004"},
            {"assign_domain": "0x00ab"},
            {"assign_control_domain": "0x0004"},
        ],
    }


def test_the_example_of_mdevctls_manual_is_read() -> None:
    text = """{ "mdev_type": "vfio_ap-passthrough", "start": "manual", "attrs": [
      {"assign_adapter": "5"}, {"assign_domain": "0x47"}, {"assign_domain": "0xff"} ] }"""

    assert read_mdevctl(text) == (ApMatrix.of([5], [0x47, 0xFF]), "manual")


def test_a_guest_of_libvirt_names_the_device() -> None:
    hostdev = ElementTree.fromstring(hostdev_xml(GUEST))

    assert hostdev.attrib == {
        "mode": "subsystem", "type": "mdev", "managed": "no", "model": "vfio-ap",
    }  # fmt: skip
    address = hostdev.find("source/address")
    assert address is not None
    assert address.attrib == {"uuid": GUEST.uuid}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<device>", "<device", "not XML"),
        ("device>", "node>", "name, parent and capability"),
        ("<name>", "<name/><name>", "name, parent and capability"),
        (">ap_matrix<", ">matrix<", "the parent is ap_matrix"),
        ("type='mdev'", "type='pci'", "of type mdev"),
        ("<type id='vfio_ap-passthrough'/>", "", "type, uuid and attr"),
        ("vfio_ap-passthrough", "vfio_ccw-io", "the type is vfio_ap-passthrough"),
        ("<uuid>6", "<uuid>x", "uuid is not one"),
        ("attr name='assign_domain' value", "attr name='assign_domain' text", "name and value"),
        ("assign_domain", "assign_queue", "no attribute 'assign_queue'"),
        ("0x00ab", "ab", "EINVAL"),
        ("0x00ab", "0x0100", "above 255"),
    ],
)
def test_a_wrong_definition_is_told(old: str, new: str, problem: str) -> None:
    wrong = XML.replace(old, new)

    assert problem in "; ".join(nodedev_problems(wrong))
    with pytest.raises(ValueError, match=problem.replace("'", ".")):
        read_nodedev(wrong)


@pytest.mark.parametrize(
    "text",
    ['{"mdev_type": "vfio_ccw-io", "start": "auto"}',
     '{"mdev_type": "vfio_ap-passthrough", "start": "now"}',
     '{"mdev_type": "vfio_ap-passthrough", "start": "auto", "more": 1}',
     '{"mdev_type": "vfio_ap-passthrough", "start": "auto", "attrs": [{"remove": "1"}]}'],
)  # fmt: skip
def test_other_definitions_for_mdevctl_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"vfio_ap|start"):
        read_mdevctl(text)
