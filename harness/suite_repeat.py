"""Tests that a known defect of the lab's own emulation broke are run again, and say so.

A virtual host under TCG whose Linux is 6.14 or later stops guests now and then: QEMU leaves the
type of the last exception in ``EXITINTINFO`` without its valid bit, and KVM looks at the type
alone (docs/findings/kvm-internal-error-under-emulated-svm.md). That is neither the subject nor
the test, so such a test is begun anew with a new guest, a few times at most. What broke it
stands on its row. Nothing else is ever run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from harness.errors import KvmStopped
from harness.model.version import KernelVersion

MOST = 3
"""Times that a test is run again."""
_EVENT_DELIVERY = 3
"""``KVM_INTERNAL_ERROR_DELIVERY_EV`` (include/uapi/linux/kvm.h)."""


def stops_its_guests(subject: Mapping[str, str]) -> bool:
    """Say whether the host is one that has the defect.

    :param subject: facts of the run, as `harness.suite_fixtures.subject_of` names them.
    """
    if subject.get("host") != "virtual" or not subject.get("accelerator", "").startswith("tcg"):
        return False
    # since 6.14: svm_check_emulate_instruction() asks whether an event is being delivered
    return KernelVersion.parse(subject["host kernel"]).has(6, 14)


def repeat_what_the_lab_broke(items: Iterable[pytest.Item], subject: Mapping[str, str]) -> None:
    """Mark *items* for pytest-rerunfailures where the host has the defect."""
    if not stops_its_guests(subject):
        return
    again = pytest.mark.flaky(reruns=MOST, only_rerun=[KvmStopped], condition=_is_the_defect)
    for item in items:
        item.add_marker(again)


def _is_the_defect(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KvmStopped):
            return error.suberror == _EVENT_DELIVERY
        error = error.__cause__ or error.__context__
    return False
