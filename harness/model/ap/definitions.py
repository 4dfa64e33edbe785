"""What makes a mediated device last: definitions for libvirt and for mdevctl.

The XML follows libvirt's schemas nodedev.rng (``capmdev``) and domaincommon.rng
(``hostdevsubsysmdev``); the JSON follows mdevctl(8), "Configuration file format".
`nodedev_problems` reads a definition back and says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from harness.model.ap.errno import KernelError
from harness.model.ap.id import IDS, kstrtoul
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.plan import Guest

MDEV_TYPE = "vfio_ap-passthrough"
PARENT = "ap_matrix"
"""The parent, as libvirt calls it; for mdevctl it is ``matrix``."""
_ATTRIBUTES = ("assign_adapter", "assign_domain", "assign_control_domain")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def attributes(matrix: ApMatrix) -> tuple[tuple[str, str], ...]:
    """Return what is written to which attribute, in order: adapters, domains, control domains."""
    return (
        *(("assign_adapter", f"{number:#04x}") for number in matrix.adapters),
        *(("assign_domain", f"{number:#06x}") for number in matrix.domains),
        *(("assign_control_domain", f"{number:#06x}") for number in matrix.control_domains),
    )


def nodedev_name(guest: Guest) -> str:
    """Return the name libvirt gives the device: ``mdev_<uuid>_matrix``."""
    return f"mdev_{guest.uuid.replace('-', '_')}_matrix"


def nodedev_xml(guest: Guest) -> str:
    """Return what ``virsh nodedev-define`` takes."""
    lines = [
        "<device>",
        f"  <name>{nodedev_name(guest)}</name>",
        f"  <parent>{PARENT}</parent>",
        "  <capability type='mdev'>",
        f"    <type id='{MDEV_TYPE}'/>",
        f"    <uuid>{guest.uuid}</uuid>",
        *(
            f"    <attr name='{name}' value='{value}'/>"
            for name, value in attributes(guest.matrix)
        ),
        "  </capability>",
        "</device>",
    ]
    return "\n".join(lines) + "\n"


def hostdev_xml(guest: Guest) -> str:
    """Return what goes among the devices of the guest's domain XML."""
    lines = [
        "<hostdev mode='subsystem' type='mdev' managed='no' model='vfio-ap'>",
        "  <source>",
        f"    <address uuid='{guest.uuid}'/>",
        "  </source>",
        "</hostdev>",
    ]
    return "\n".join(lines) + "\n"


def mdevctl_json(guest: Guest, *, start: str = "auto") -> str:
    """Return what ``mdevctl define --jsonfile`` takes."""
    definition = {
        "mdev_type": MDEV_TYPE,
        "start": start,
        "attrs": [{name: value} for name, value in attributes(guest.matrix)],
    }
    return json.dumps(definition, indent=2) + "\n"


def matrix_of(pairs: list[tuple[str, str]]) -> ApMatrix:
    """Return what writing these attributes to a new mdev assigns.

    :raise ValueError: an attribute is none of vfio_ap, or a value no id.
    """
    found: dict[str, list[int]] = {name: [] for name in _ATTRIBUTES}
    for name, value in pairs:
        if name not in found:
            raise ValueError(f"vfio_ap has no attribute {name!r}")
        try:
            number = kstrtoul(value)
        except KernelError as error:
            raise ValueError(f"{name} = {value!r}: {error.errno}") from error
        if number >= IDS:
            raise ValueError(f"{name} = {value!r}: above {IDS - 1}")
        found[name].append(number)
    return ApMatrix.of(*(found[name] for name in _ATTRIBUTES))


def read_nodedev(text: str) -> Guest:
    """Read a definition for libvirt back; the guest is called by the device's name.

    :raise ValueError: `nodedev_problems` says why.
    """
    if problems := nodedev_problems(text):
        raise ValueError("; ".join(problems))
    device = ElementTree.fromstring(text)
    pairs = [(one.get("name", ""), one.get("value", "")) for one in device.iter("attr")]
    return Guest(
        device.findtext("name", ""), matrix_of(pairs), device.findtext("capability/uuid", "")
    )


def read_mdevctl(text: str) -> tuple[ApMatrix, str]:
    """Read a definition for mdevctl back: (matrix, ``auto`` or ``manual``).

    :raise ValueError: it is not one of vfio_ap.
    """
    definition = json.loads(text)
    if set(definition) - {"mdev_type", "start", "attrs"} or (
        definition.get("mdev_type") != MDEV_TYPE
    ):
        raise ValueError(f"not a definition of {MDEV_TYPE}")
    if definition.get("start") not in ("auto", "manual"):
        raise ValueError("start is auto or manual")
    pairs = [
        (name, value) for entry in definition.get("attrs", []) for name, value in entry.items()
    ]
    return matrix_of(pairs), definition["start"]


def nodedev_problems(text: str) -> tuple[str, ...]:
    """Say what libvirt's schema, or vfio_ap, would not take in a definition; empty: nothing."""
    try:
        device = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return (f"not XML: {error}",)
    problems = []
    if device.tag != "device" or [child.tag for child in device] != [
        "name", "parent", "capability",
    ]:  # fmt: skip
        return ("a device has name, parent and capability",)
    capability = device[2]
    if device.findtext("parent") != PARENT:
        problems.append(f"the parent is {PARENT}")
    if capability.attrib != {"type": "mdev"}:
        problems.append("the capability is of type mdev")
    tags = [child.tag for child in capability]
    if tags[:2] != ["type", "uuid"] or set(tags[2:]) - {"attr"}:
        return (*problems, "the capability has type, uuid and attr")
    if capability[0].attrib != {"id": MDEV_TYPE}:
        problems.append(f"the type is {MDEV_TYPE}")
    if _UUID.fullmatch(capability.findtext("uuid", "")) is None:
        problems.append("the uuid is not one")
    if any(set(one.attrib) != {"name", "value"} for one in capability[2:]):
        return (*problems, "an attr has name and value")
    try:
        matrix_of([(one.get("name", ""), one.get("value", "")) for one in capability[2:]])
    except ValueError as error:
        problems.append(str(error))
    return tuple(problems)
