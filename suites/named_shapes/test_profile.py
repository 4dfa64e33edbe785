"""The model of a QAT C62x is as its profile says (``profiles/qat-c62x.toml``)."""

from dataclasses import replace

import pytest

from harness.guest.look import seen
from harness.lab.profiles import load_profile
from harness.model.profile import Answer, DeviceProfile, SeenDevice, check, of_shapes
from harness.testing import must_fail
from suites.named_shapes.conftest import SPARE, Prepared

NOT_HERE = {"sriov.total", "sriov.first_offset", "sriov.stride", "sriov.device", "sriov.places",
            "sriov.enable"}  # fmt: skip
"""Items that the models cannot be asked: they have no SR-IOV capability."""


@pytest.fixture
def seen_models(shape_host: Prepared) -> SeenDevice:
    """Physical and virtual function, as Linux shows the models."""
    functions = shape_host.there.functions()
    each = seen(shape_host.there.host, [functions[SPARE], functions["qat-vf"]])
    return of_shapes(*each)


def check_nothing_differs(profile: DeviceProfile, found: SeenDevice) -> None:
    """What the models can be asked holds; the rest is told as not asked."""
    answers = {one.item: one for one in check(profile, found)}
    odd = [f"{one}" for one in answers.values() if one.answer is Answer.DIFFERS]
    assert not odd, "\n".join(odd)
    unasked = {item for item, one in answers.items() if one.answer is Answer.UNASKED}
    assert unasked == NOT_HERE, unasked


@pytest.mark.rule("QAT-01", "QAT-07", "QAT-08")
def test_models_are_as_the_profile_says(seen_models: SeenDevice) -> None:
    """Identity, vector, missing FLR and AER masks of a C62x are what its profile says."""
    check_nothing_differs(load_profile("qat-c62x"), seen_models)


@pytest.mark.negative_control("QAT-01", "QAT-07", "QAT-08")
def test_another_profile_is_noticed(seen_models: SeenDevice) -> None:
    """With FLR, or with another mask, the models are not as it says."""
    profile = load_profile("qat-c62x")

    with must_fail():
        check_nothing_differs(
            replace(profile, virtual=replace(profile.virtual, flr=True)), seen_models
        )
    with must_fail():
        check_nothing_differs(
            replace(profile, physical=replace(profile.physical, aer_masked=1)), seen_models
        )
