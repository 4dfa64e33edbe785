"""Random sequences of operations: what holds in every state, whatever was done and refused."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.agreement_plan import sample
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.kernel import DEFAULT_DRIVER, PASSABLE, VFIO_AP, ApKernel, Draft, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import booted
from harness.model.ap.sysfs import texts
from harness.model.ap.vfio import filter_matrix

LENGTH = 40
# A sequence is its seed and its length: a failure shrinks to its first steps.
seeds, lengths = st.integers(0, 2**32), st.integers(0, LENGTH)
HARDWARE = ApHardware(
    cards={4: Card(), 5: Card(), 6: Card()},
    domains=ApMask.of([4, 0x47]),
    control_domains=ApMask.of([4, 9]),
)
KERNELS = {version: Traits.of_version(version) for version in ((6, 12), (7, 2))}


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
@given(seed=seeds, length=lengths, version=st.sampled_from(sorted(KERNELS)))
def test_promises_hold_after_every_step(seed: int, length: int, version: tuple[int, int]) -> None:
    state = booted(HARDWARE, KERNELS[version])

    overridden = False
    for step in sample(state, Random(seed), length):
        outcome = step.operation.apply(state)
        assert outcome.errno is None or outcome.state == state or outcome.errno == "EIO"
        assert outcome == step.outcome
        state = outcome.state
        overridden = overridden or bool(state.overrides)
        check(state, overrides=overridden)


@pytest.mark.rule("AP-12")
@given(seed=seeds, length=lengths)
def test_a_filter_leaves_adapters_that_are_whole_and_reset_well(seed: int, length: int) -> None:
    state = booted(HARDWARE, KERNELS[6, 12])
    # The last steps of a sequence clean up: stop before them.
    for step in sample(state, Random(seed), length)[:length]:
        state = step.outcome.state

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


def test_sequences_meet_every_refusal() -> None:
    """Sequences that met only successes would prove little."""
    met = {
        str(step.outcome.errno)
        for seed in range(30)
        for traits in KERNELS.values()
        for step in sample(booted(HARDWARE, traits), Random(seed), LENGTH)
    }

    assert met >= {
        "None", "EINVAL", "ERANGE", "ENODEV", "EADDRNOTAVAIL", "EADDRINUSE", "EBUSY", "EEXIST",
    }  # fmt: skip
