"""Plans for AP queues, and hosts that have some, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.model.ap.definitions import hostdev_xml, nodedev_name
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import VFIO_AP, ApKernel
from harness.model.ap.lint import Remark, remarks_on, remarks_on_plan
from harness.model.ap.mask import ApMask
from harness.model.ap.operation import Write
from harness.model.ap.plan import Free, Guest, Plan, Step
from harness.model.ap.sysfs import MATRIX
from harness.model.ap.table import CONFLICT, FREE, HOST, ApTable, table_of_host, table_of_plan


def brief_lines(plan: Plan) -> list[str]:
    """Return who gets what, what the kernel refuses, and what is odd."""
    lines = [f"{_count(len(plan.guests), 'guest')}; queues are freed by {plan.free}.", ""]
    lines += [*table_lines(table_of_plan(plan)), ""]
    lines += conflict_lines(plan.conflicts)
    if remarks := remarks_on_plan(plan):
        lines += ["", "Remarks", *remark_lines(remarks)]
    return lines


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan, ready to be read and followed."""
    lines = [*brief_lines(plan), "", *_freeing(plan), ""]
    for guest in plan.guests:
        lines += [*_guest(plan, guest), ""]
    return [*lines, *_lasting(plan)]


def host_lines(state: ApKernel) -> list[str]:
    """Return what a host has, and what is odd about it."""
    queues = len(state.queues)
    free = sum(queue.driver == VFIO_AP for queue in state.queues.values())
    lines = [
        f"{_count(len(state.cards), 'card')}, {_count(queues, 'queue')}, {free} of them with "
        f"vfio_ap, {_count(len(state.mdevs), 'mediated device')}.",
        f"apmask {state.apmask}",
        f"aqmask {state.aqmask}",
        "",
        *table_lines(table_of_host(state)),
    ]
    remarks = remarks_on(state)
    return [*lines, "", "Remarks", *(remark_lines(remarks) or ["  none"])]


def table_lines(table: ApTable) -> list[str]:
    """Return the table of the documents: a column for each adapter, a row for each domain."""
    if not (table.adapters and table.domains):
        return ["no queues"]
    head = "domain  " + " ".join(f"{adapter:02x}" for adapter in table.adapters) + "  adapter"
    rows = [
        f"{domain:04x}    "
        + " ".join(f"{table.mark(Apqn(adapter, domain)):>2}" for adapter in table.adapters)
        for domain in table.domains
    ]
    legend = [f"{table.mark_of(name)} {name}" for name in table.names]
    legend += [f"{mark} {text}" for mark, text in LEGEND if table.has(mark)]
    return [head, *rows, "", "  ".join(legend)]


LEGEND = ((HOST, "host"), (FREE, "free, no guest's"), (CONFLICT, "conflict"))


def conflict_lines(conflicts: Sequence[Step]) -> list[str]:
    """Return what the kernel refuses, and with which words."""
    if not conflicts:
        return ["Conflicts: none; the kernel takes every write."]
    lines = [f"Conflicts: {_count(len(conflicts), 'write')} refused"]
    for step in conflicts:
        who = step.guest or "host"
        lines += [f"  {who}: {step.command}"]
        if step.errno is not None:
            lines += [f"    {step.errno}: {step.errno.message}", f"    {step.why}"]
    return lines


def remark_lines(remarks: Iterable[Remark]) -> list[str]:
    """Return remarks, each with what to do next."""
    lines = []
    for remark in remarks:
        lines.append(f"  {remark.weight.name.lower():<8}{remark.where}: {remark.what}")
        if remark.next:
            lines.append(f"          next: {remark.next}")
    return lines


def script(plan: Plan) -> str:
    """Return the writes as a shell script that stops at the first refusal."""
    lines = ["#!/bin/sh", "# Not kept over a restart: see chzdev, mdevctl and virsh.", "set -e"]
    for who in ("", *(guest.name for guest in plan.guests)):
        steps = plan.steps_of(who)
        if steps:
            lines += ["", f"# {who or 'host'}", *(step.command for step in steps)]
    return "\n".join(lines) + "\n"


def _freeing(plan: Plan) -> list[str]:
    steps = [one.operation for one in plan.steps_of("") if isinstance(one.operation, Write)]
    loads = [one for one in plan.steps_of("") if not isinstance(one.operation, Write)]
    lines = ["Take the queues from the host", *(f"  {one.command}" for one in loads)]
    if not steps:
        return [*lines, "  nothing to do: they are free"]
    if plan.free is Free.QUEUES:
        writes = (f"  echo {one.text.strip()} > {one.path}" for one in steps)
        return [*lines, *writes, "  (not kept over a restart: chzdev knows masks only)"]
    name = "apmask" if plan.free is Free.ADAPTERS else "aqmask"
    before = plan.start.apmask if plan.free is Free.ADAPTERS else plan.start.aqmask
    change = steps[0].text.strip()
    after = before.changed(change)
    return [
        *lines,
        f"  {name} becomes {after}",
        f"  now, by changes:   echo {change} > /sys/bus/ap/{name}",
        f"  now, in full:      echo {after} > /sys/bus/ap/{name}",
        f"  for good:          chzdev --type ap {name}={change}",
        f"  or at boot:        ap.{name}={after}",
    ]


def _guest(plan: Plan, guest: Guest) -> list[str]:
    steps = plan.steps_of(guest.name)
    mdev = plan.end.mdev(guest.uuid)
    gets = mdev.shadow.matrix_text().split() if mdev is not None else []
    place = f"{MATRIX}/{guest.uuid}"
    lines = [
        f"Guest {guest.name}",
        f"  adapters {_ids(guest.matrix.adapters, 2)}; domains {_ids(guest.matrix.domains, 4)}; "
        f"control domains {_ids(guest.matrix.control_domains, 4)}",
        f"  guest_matrix will be {' '.join(gets) or 'empty'}",
        f"  U={guest.uuid}; M={MATRIX}/$U",
    ]
    for step in steps:
        command = step.command.replace(place, "$M").replace(guest.uuid, "$U")
        refused = f"    # {step.errno}" if step.errno is not None else ""
        lines.append(f"  {command}{refused}")
    lines.append("  or all at once (6.10 and later), after the create:")
    lines.append(f"  echo {_short_config(guest)} > $M/ap_config")
    return lines


def _lasting(plan: Plan) -> list[str]:
    lines = ["Keep the devices over a restart, one of both (files: --write DIR)"]
    for guest in plan.guests:
        lines += [
            f"  virsh nodedev-define nodedev-{guest.name}.xml && "
            f"virsh nodedev-autostart {nodedev_name(guest)}",
            f"  mdevctl define -u {guest.uuid} -p matrix --jsonfile mdevctl-{guest.name}.json",
        ]
    lines += ["", "Give them to the guests (one vfio-ap device each)"]
    for guest in plan.guests:
        lines += [
            f"  {guest.name}: -cpu host,ap=on,apqci=on,apft=on,apqi=on -device "
            f"vfio-ap,sysfsdev=/sys/bus/mdev/devices/{guest.uuid}",
        ]
    if plan.guests:
        lines += ["  or in libvirt's domain XML:"]
        lines += [f"    {line}" for line in hostdev_xml(plan.guests[0]).splitlines()]
    return lines


def _short_config(guest: Guest) -> str:
    """Return the three masks without the zeros at their ends, which the kernel adds."""
    masks = (guest.matrix.adapters, guest.matrix.domains, guest.matrix.control_domains)
    return ",".join(_short(mask) for mask in masks)


def _short(mask: ApMask) -> str:
    digits = str(mask).removeprefix("0x").rstrip("0")
    return f"0x{digits}"


def _ids(mask: ApMask, digits: int) -> str:
    return " ".join(f"{number:0{digits}x}" for number in mask) or "none"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
