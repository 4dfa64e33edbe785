"""Which images a run is made of."""

from __future__ import annotations

from harness.images.images import Images
from harness.lab.parts import Parts
from harness.settings import Settings


class FakeImages(Images):
    """Names kernels and makes none."""

    def __init__(self) -> None:
        pass

    def kernel(self, source: object = None) -> str:  # type: ignore[override]
        return str(source)


def test_guests_have_a_kernel_of_their_own_unless_they_shall_be_like_their_host() -> None:
    parts = Parts(Settings(kernel="built:7.3", guest_kernel="debian:sid"), FakeImages())

    assert str(parts.guest_kernel) == "debian:sid"
    assert str(parts.with_guests_like_their_host().guest_kernel) == "built:7.3"
    assert str(parts.with_guests_like_their_host().kernel) == "built:7.3"
