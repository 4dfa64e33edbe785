"""Random walks through what can be done to a host with AP queues.

One chooser for two tests: hypothesis drives the model with it, and a real kernel's sysfs is
driven beside the model. Ids come from few, so that mediated devices get in each other's way;
texts are spelled in every way the kernel takes, and in some it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from harness.model.ap_hardware import Card, Mode, Response
from harness.model.ap_id import Apqn
from harness.model.ap_kernel import DEFAULT_DRIVER, VFIO_AP, ApKernel
from harness.model.ap_mask import ApMask
from harness.model.ap_matrix import ApMatrix
from harness.model.ap_operation import (
    CloseDevice,
    OpenDevice,
    Operation,
    PlugCard,
    ResetDevice,
    SetControlDomains,
    SetDomains,
    SetReset,
    UnplugCard,
    assign,
    bind,
    configure,
    create_mdev,
    override,
    remove_mdev,
    scan,
    set_apmask,
    set_aqmask,
    unbind,
)

UUIDS = (
    "11111111-a51d-4e0b-8b8c-7b9b2f6f0001",
    "22222222-a51d-4e0b-8b8c-7b9b2f6f0002",
    "33333333-a51d-4e0b-8b8c-7b9b2f6f0003",
)
_ASSIGNMENTS = (
    "assign_adapter", "assign_domain", "assign_adapter", "assign_domain", "assign_control_domain",
    "unassign_adapter", "unassign_domain", "unassign_control_domain",
)  # fmt: skip
_NOT_NUMBERS = ("", "\n", "0x\n", "-1\n", "1b\n", "08\n", " 4\n", "99999999999999999999\n")
_NOT_MASKS = ("+256\n", "+\n", "-0x100\n", "0xg\n", f"0x{65 * '0'}\n", "+5, +6\n")
_NOT_CONFIGS = ("0x04\n", "0x04,0x08,0xg\n", "0x04,zz,0x\n")
_ODD_RESET = 0x42
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk may touch."""

    adapters: Sequence[int]
    """Ids that are written, of cards there or not, also above the highest."""
    domains: Sequence[int]
    machine: bool = False
    """Cards and domains of the machine come and go (a scan follows each change)."""
    devices: bool = False
    """VFIO devices are opened, reset and closed."""
    overrides: bool = False
    """Driver overrides are set, where the kernel has them."""

    def step(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        """Return what is done next: one operation, or a change of the machine and a scan.

        Nothing that blocks, and nothing that runs into a known defect of the kernel.
        """
        kinds: list[Callable[[Random, ApKernel], tuple[Operation, ...]]] = [
            *4 * [self._assignment],
            self._configure,
            *2 * [self._mask],
            self._mdev,
            self._binding,
        ]
        kinds += 2 * [self._machine] if self.machine else []
        kinds += 2 * [self._device] if self.devices else []
        kinds += [self._override] if self.overrides and state.traits.driver_override else []
        for _ in range(_TRIES):
            found = random.choice(kinds)(random, state)
            if found and _is_safe(state, found):
                return found
        return (scan(),)

    def _assignment(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        attribute = random.choice(_ASSIGNMENTS)
        ids = self.adapters if attribute.endswith("adapter") else self.domains
        text = random.choice(_NOT_NUMBERS) if _rarely(random) else _spelled(random, ids)
        return tuple(assign(uuid, attribute, text) for uuid in _one(random, state))

    def _configure(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        text = random.choice(_NOT_CONFIGS) if _rarely(random) else self._matrix(random, state)
        return tuple(configure(uuid, text) for uuid in _one(random, state))

    def _matrix(self, random: Random, state: ApKernel) -> str:
        adapters, domains = list(self.adapters), list(self.domains)
        if not _rarely(random):
            adapters = [one for one in adapters if one <= state.hardware.max_adapter]
            domains = [one for one in domains if one <= state.hardware.max_domain]
        matrix = ApMatrix(_some(random, adapters), _some(random, domains), _some(random, domains))
        text = matrix.config_text()
        # Zeros at the end may be left out.
        masks = [mask.rstrip("0") or "0x" for mask in text.rstrip("\n").split(",")]
        return random.choice([text, ",".join(masks) + "\n"])

    def _mask(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        write, old, ids = random.choice(
            [
                (set_apmask, state.apmask, self.adapters),
                (set_aqmask, state.aqmask, self.domains),
            ]
        )
        if _rarely(random):
            return (write(random.choice(_NOT_MASKS)),)
        kept = [number for number in ids if number < 256]
        # Mostly towards vfio_ap, which has little to do otherwise.
        new = ~_some(random, kept) if random.random() < 0.3 else old - _some(random, kept)
        texts = [f"{new}\n"]
        texts += [f"{old.changes_to(new)}\n"] if new != old else []
        return (write(random.choice(texts)),)

    def _mdev(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        uuid = random.choice(UUIDS)
        if state.mdev(uuid) is None or random.random() < 0.4:
            return (create_mdev(f"{uuid}\n"),)
        return (remove_mdev(uuid, random.choice(["1\n", "1\n", "0\n", "x\n"])),)

    def _binding(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        if not state.queues:
            return ()
        free = [apqn for apqn, queue in state.queues.items() if queue.driver is None]
        apqn = random.choice(free if free and random.random() < 0.6 else list(state.queues))
        driver = random.choice([DEFAULT_DRIVER, VFIO_AP])
        verb = bind if apqn in free else random.choice([bind, unbind, unbind])
        return (verb(driver, apqn),)

    def _override(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        if not state.queues:
            return ()
        text = random.choice([f"{VFIO_AP}\n", f"{DEFAULT_DRIVER}\n", "\n", "\n", "no_such\n"])
        return (override(random.choice(list(state.queues)), text),)

    def _device(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        for uuid in _one(random, state):
            mdev = state.mdev(uuid)
            if mdev is not None and mdev.vm is None:
                return (OpenDevice(uuid, uuid),)
            either: list[Operation] = [CloseDevice(uuid), ResetDevice(uuid)]
            return (random.choice(either),)
        return ()

    def _machine(self, random: Random, state: ApKernel) -> tuple[Operation, ...]:
        hardware = state.hardware
        adapter = random.choice([one for one in self.adapters if one <= hardware.max_adapter])
        usable = [one for one in self.domains if one <= hardware.max_domain]
        mode = random.choice([Mode.ACCELERATOR, Mode.EP11])
        changes: list[Operation] = [
            PlugCard(adapter, Card(random.choice([10, 13, 14]), mode)),
            SetDomains(_some(random, usable) | ApMask.of(usable[:1])),
            SetControlDomains(_some(random, usable)),
        ]
        if adapter in hardware.cards:
            card = hardware.cards[adapter]
            changes += [
                UnplugCard(adapter),
                PlugCard(adapter, Card(card.hwtype, card.mode, configured=False)),
                PlugCard(adapter, Card(card.hwtype, card.mode, checkstopped=True)),
                PlugCard(adapter, Card(card.hwtype, card.mode)),
                SetReset(
                    Apqn(adapter, random.choice(usable)),
                    random.choice([None, Response.NORMAL, _ODD_RESET]),
                ),
            ]
        return (random.choice(changes), scan())


def _is_safe(state: ApKernel, operations: Sequence[Operation]) -> bool:
    for operation in operations:
        outcome = operation.apply(state)
        if outcome.blocks or outcome.hazards:
            return False
        state = outcome.state
    return True


def _one(random: Random, state: ApKernel) -> tuple[str, ...]:
    return (random.choice(state.mdevs).uuid,) if state.mdevs else ()


def _some(random: Random, ids: Sequence[int]) -> ApMask:
    return ApMask.of(number for number in ids if random.random() < 0.4)


def _rarely(random: Random) -> bool:
    return random.random() < 0.1


def _spelled(random: Random, ids: Sequence[int]) -> str:
    number = random.choice(ids)
    return random.choice(["{}", "{:#x}", "{:#X}", "+{}", "0{:o}"]).format(number) + "\n"
