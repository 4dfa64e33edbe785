"""Random walks: what holds in every state, whatever was done and refused."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from harness.model.ap_hardware import ApHardware, Card
from harness.model.ap_kernel import DEFAULT_DRIVER, PASSABLE, VFIO_AP, ApKernel, Draft, Traits
from harness.model.ap_mask import ApMask
from harness.model.ap_matrix import ApMatrix
from harness.model.ap_operation import booted
from harness.model.ap_sysfs import links, texts
from harness.model.ap_vfio import filter_matrix
from harness.model.ap_walk import Walk

STEPS = 40
# A walk is its seed and its length: a failure shrinks to its first steps.
seeds, lengths = st.integers(0, 2**32), st.integers(0, STEPS)
HARDWARE = ApHardware(
    cards={4: Card(), 5: Card(), 6: Card()},
    domains=ApMask.of([4, 5, 7]),
    control_domains=ApMask.of([4, 9]),
    max_adapter=0x3F,
    max_domain=0x0F,
)
IDS = ([4, 5, 6, 9, 0x40], [4, 5, 7, 9, 0x10])
KINDS = {
    "6.12": (Traits.of_version((6, 12)), Walk(*IDS, machine=True, devices=True)),
    "7.2": (Traits.of_version((7, 2)), Walk(*IDS, machine=True, devices=True)),
    "7.2 overrides": (Traits.of_version((7, 2)), Walk(*IDS, devices=True, overrides=True)),
}


def check(state: ApKernel, *, overrides: bool) -> None:
    """What the kernel promises in every state."""
    for mdev in state.mdevs:
        assert mdev.shadow.adapters <= mdev.assigned.adapters
        assert mdev.shadow.domains <= mdev.assigned.domains
        assert mdev.shadow.control_domains <= mdev.assigned.control_domains
        assert all(apqn in mdev.assigned for apqn in mdev.linked)
        assert all(state.queues[apqn].driver == VFIO_AP for apqn in mdev.linked)
        for apqn in mdev.shadow:
            # Nothing of a guest is with a driver of the host.
            queue = state.queues.get(apqn)
            assert queue is None or queue.driver == VFIO_AP
        for other in state.mdevs:
            assert other.uuid == mdev.uuid or not len(mdev.assigned.shared(other.assigned))
        if state.traits.empty_matrix_reaches_guest:
            assert mdev.crycb == (None if mdev.vm is None else mdev.shadow)
        if not overrides:
            assert not any(state.reserved(apqn) for apqn in mdev.assigned)
    for apqn, queue in state.queues.items():
        if queue.driver is not None and not overrides:
            assert (queue.driver == DEFAULT_DRIVER) == state.reserved(apqn)
    shown = texts(state)
    for mdev in state.mdevs:
        (config,) = (
            text for path, text in shown.items() if path.endswith(f"{mdev.uuid}/ap_config")
        )
        assert ApMatrix.config(config) == mdev.assigned


@pytest.mark.rule("AP-04", "AP-08", "AP-12")
@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, steps=lengths)
@settings(max_examples=60)
def test_promises_hold_on_every_walk(kind: str, seed: int, steps: int) -> None:
    traits, walk = KINDS[kind]
    state = booted(HARDWARE, traits)

    random = Random(seed)
    for _ in range(steps):
        for operation in walk.step(random, state):
            outcome = operation.apply(state)
            assert outcome.errno is None or outcome.state == state or outcome.errno == "EIO"
            event(f"{outcome.errno}")
            state = outcome.state
        check(state, overrides=walk.overrides)


@pytest.mark.rule("AP-12")
@given(seed=seeds, steps=lengths)
@settings(max_examples=60)
def test_a_filter_leaves_adapters_that_are_whole_and_reset_well(seed: int, steps: int) -> None:
    traits, walk = KINDS["6.12"]
    state = booted(HARDWARE, traits)
    random = Random(seed)
    for _ in range(steps):
        for operation in walk.step(random, state):
            state = operation.apply(state).state

    draft = Draft(state)
    for mdev in state.mdevs:
        filter_matrix(draft, mdev.uuid)

    assert state.vfio_configuration is not None
    for mdev in draft.state.mdevs:
        host = state.vfio_configuration
        domains = mdev.assigned.domains & host.domains
        assert mdev.shadow.domains == domains
        whole = [
            adapter
            for adapter in mdev.assigned.adapters & host.adapters
            if all(
                apqn in mdev.linked and state.queues[apqn].reset in PASSABLE
                for apqn in ApMatrix(ApMask.of([adapter]), domains)
            )
        ]
        assert list(mdev.shadow.adapters) == whole


def test_walks_meet_every_refusal() -> None:
    """A walk that met only successes would prove little."""
    met = set()
    for seed in range(30):
        random = Random(seed)
        for traits, walk in KINDS.values():
            state = booted(HARDWARE, traits)
            for _ in range(STEPS):
                for operation in walk.step(random, state):
                    outcome = operation.apply(state)
                    met.add(str(outcome.errno))
                    state = outcome.state

    assert met >= {
        "None", "EINVAL", "ERANGE", "ENODEV", "EADDRNOTAVAIL", "EADDRINUSE", "EBUSY", "EEXIST",
        "EIO",
    }  # fmt: skip


def test_a_walk_is_the_same_from_the_same_seed() -> None:
    traits, walk = KINDS["6.12"]
    state = booted(HARDWARE, traits)

    assert walk.step(Random(7), state) == walk.step(Random(7), state)


def test_a_host_without_queues_is_scanned() -> None:
    empty = booted(replace(HARDWARE, cards={}), KINDS["6.12"][0])

    assert links(empty) == {}
    assert Walk([4], [4]).step(Random(1), empty)
