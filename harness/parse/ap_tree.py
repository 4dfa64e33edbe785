"""A host's AP queues from its sysfs: a tree of files, live or copied."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.errors import ParseError
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import (
    DEFAULT_DRIVER,
    VFIO_AP,
    ApKernel,
    CardDevice,
    Mdev,
    QueueDevice,
    Traits,
)
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.parse.ap_sysfs import (
    read_ap_config,
    read_control_domains,
    read_mask,
    read_matrix,
)

BUS_FILES = (
    "apmask", "aqmask", "ap_adapter_mask", "ap_usage_domain_mask", "ap_control_domain_mask",
    "ap_max_adapter_id", "ap_max_domain_id", "config_time",
)  # fmt: skip
"""What is read of ``sys/bus/ap``; the first two must be there."""
_CARD = re.compile(r"sys/devices/ap/card([0-9a-f]{2})/hwtype")
_QUEUE = re.compile(r"sys/devices/ap/card[0-9a-f]{2}/([0-9a-f]{2}\.[0-9a-f]{4})/config")
_MDEV = re.compile(r"sys/devices/vfio_ap/matrix/([0-9a-f-]{36})/matrix")
_SECTION = re.compile(r"==> /?(\S+) <==")
SOMEBODY = "a virtual machine"
"""Whose queues in use are: sysfs does not say."""


def read_recording(text: str) -> dict[str, str]:
    """Return the files of a recording: what ``head`` prints for many, ``==> path <==`` above each.

    Of links named ``driver`` it holds what ``readlink`` says.
    """
    files: dict[str, str] = {}
    path = ""
    for line in text.splitlines():
        if match := _SECTION.fullmatch(line):
            path = match[1]
            files[path] = ""
        elif path and line:
            files[path] += f"{line}\n"
    return {
        path: found.strip().rpartition("/")[2] if path.endswith("/driver") else found
        for path, found in files.items()
        if found.strip() or not path.endswith("/driver")
    }


def read_tree(files: Mapping[str, str], version: tuple[int, ...]) -> ApKernel:
    """Return the state of a host.

    :param files: path below the root to text; links named ``driver`` to the driver's name.
    :param version: of its kernel, for what no file says.
    :raise ParseError: masks are missing, or a file is not what it should be.
    """
    bus = {name: files.get(f"sys/bus/ap/{name}", "").strip() for name in BUS_FILES}
    if not (bus["apmask"] and bus["aqmask"]):
        raise ParseError(
            "there is no AP bus: sys/bus/ap/apmask and aqmask are missing",
            text="\n".join(sorted(files)[:10]),
            where="host tree",
        )
    cards = {
        int(match[1], 16): _card(files, match[0]) for match in map(_CARD.fullmatch, files) if match
    }
    queues = {
        Apqn.parse(match[1]): _queue(files, match[0].rpartition("/")[0])
        for match in map(_QUEUE.fullmatch, sorted(files))
        if match
    }
    control = _mask(bus["ap_control_domain_mask"]) or ApMask()
    hardware = ApHardware(
        # A card of which there is no device is too old, or does not say what it is.
        cards=dict.fromkeys(_mask(bus["ap_adapter_mask"]) or (), Card(hwtype=0))
        | {
            number: Card(card.hwtype, card.mode, card.configured, card.checkstopped)
            for number, card in cards.items()
        },
        domains=_mask(bus["ap_usage_domain_mask"]) or ApMask.of(one.domain for one in queues),
        control_domains=control,
        max_adapter=int(bus["ap_max_adapter_id"] or 255),
        max_domain=int(bus["ap_max_domain_id"] or 255),
    )
    has_vfio = any(path.startswith("sys/devices/vfio_ap/matrix/") for path in files)
    override = any(path.endswith("/driver_override") for path in files)
    traits = Traits.of_version(max(version, (6, 19)) if override else version)
    return ApKernel(
        traits=traits,
        hardware=hardware,
        configuration=hardware.configuration,
        vfio_configuration=hardware.configuration if has_vfio else None,
        apmask=_mask(bus["apmask"]) or ApMask(),
        aqmask=_mask(bus["aqmask"]) or ApMask(),
        cards=cards,
        queues=queues,
        mdevs=_mdevs(files, queues, control),
        drivers=(DEFAULT_DRIVER, VFIO_AP) if has_vfio else (DEFAULT_DRIVER,),
        overrides=sum(bool(queue.override) for queue in queues.values()),
        config_time=int(bus["config_time"] or 30),
    )


def _card(files: Mapping[str, str], path: str) -> CardDevice:
    place = path.rpartition("/")[0]
    functions = int(files.get(f"{place}/ap_functions", "0x08000000"), 16)
    mode = next((mode for mode in Mode if functions & mode), Mode.ACCELERATOR)
    return CardDevice(
        int(files[path]),
        mode,
        configured=files.get(f"{place}/config", "1").strip() != "0",
        checkstopped=files.get(f"{place}/chkstop", "0").strip() == "1",
    )


def _queue(files: Mapping[str, str], place: str) -> QueueDevice:
    return QueueDevice(
        configured=files.get(f"{place}/config", "1").strip() != "0",
        checkstopped=files.get(f"{place}/chkstop", "0").strip() == "1",
        driver=files.get(f"{place}/driver"),
        # Older and newer kernels show none as nothing, others as (null).
        override=files.get(f"{place}/driver_override", "").strip().replace("(null)", ""),
    )


def _mdevs(
    files: Mapping[str, str], queues: Mapping[Apqn, QueueDevice], control: ApMask
) -> tuple[Mdev, ...]:
    in_use = {
        match[1]
        for path, text in files.items()
        if text.strip() == "in use"
        and (match := re.search(r"/([0-9a-f]{2}\.[0-9a-f]{4})/status$", path))
    }
    found = []
    for match in map(_MDEV.fullmatch, sorted(files)):
        if match is None:
            continue
        place = match[0].rpartition("/")[0]
        assigned = _assigned(files, place)
        shown = read_matrix(files.get(f"{place}/guest_matrix", ""))
        shadow = ApMatrix(shown.adapters, shown.domains, assigned.control_domains & control)
        linked = frozenset(
            apqn for apqn in assigned if apqn in queues and queues[apqn].driver == VFIO_AP
        )
        vm = SOMEBODY if any(str(apqn) in in_use for apqn in assigned) else None
        found.append(Mdev(match[1], assigned, shadow, linked, vm, shadow if vm else None))
    return tuple(found)


def _assigned(files: Mapping[str, str], place: str) -> ApMatrix:
    if config := files.get(f"{place}/ap_config"):
        return read_ap_config(config)
    matrix = read_matrix(files[f"{place}/matrix"])
    control = read_control_domains(files.get(f"{place}/control_domains", ""))
    return ApMatrix(matrix.adapters, matrix.domains, control)


def _mask(text: str) -> ApMask | None:
    return read_mask(text) if text else None
