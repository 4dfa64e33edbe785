"""Levels of AP virtualization: what is left of masks on the way to a guest.

A machine partitions its adapters among LPARs, an LPAR its queues among KVM guests, a guest
among its own. Masks are full size at every level, whatever the levels below make available; a
queue is usable where every level has its bits: EAPM = G1.APM & G2.APM.
"""

from __future__ import annotations

from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix


def effective(*levels: ApMatrix) -> ApMatrix:
    """Return what a guest can use: the bits that every level above it, and its own, have.

    With no level at all it is the machine itself: everything.
    """
    adapters = domains = control = ApMask.full()
    for level in levels:
        adapters &= level.adapters
        domains &= level.domains
        control &= level.control_domains
    return ApMatrix(adapters, domains, control)


def freed(apmask: ApMask, aqmask: ApMask, lpar: ApMatrix) -> tuple[Apqn, ...]:
    """Return the queues of the LPAR that vfio_ap may have: one of their mask bits is 0."""
    return tuple(apqn for apqn in lpar if not (apqn.adapter in apmask and apqn.domain in aqmask))


def eligible(lpar: ApMatrix, apmask: ApMask, aqmask: ApMask, mdev: ApMatrix) -> tuple[Apqn, ...]:
    """Return the queues that pass all three filters, in order: LPAR, host, mediated device.

    This is by queue, as IBM's figure draws it; the kernel then drops an adapter whole if it has
    not all of them (`ap_vfio.filter_matrix`).
    """
    allowed = set(freed(apmask, aqmask, lpar))
    return tuple(apqn for apqn in mdev if apqn in allowed)
