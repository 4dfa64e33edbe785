"""Fixtures of the shapes: a QEMU with vfio-user-pci, and what it makes of a shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.lab.parts import Parts
from harness.shapes.bench import LABEL
from harness.shapes.builds import first_with_vfio_user
from harness.shapes.observe import Build, Observation
from harness.shapes.observe import observe as observe_shape
from harness.shapes.shape import Shape

Observe = Callable[[Shape], Observation]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say on every row of this suite what is modelled."""
    item.add_marker(pytest.mark.label(LABEL))


@pytest.fixture(scope="session")
def shape_build(parts: Parts) -> Build:
    """The build under test if it has vfio-user-pci, else one that has."""
    settings = parts.settings
    return first_with_vfio_user([settings.qemu, settings.l0_qemu], parts.images.workshop)


@pytest.fixture
def shape_qemu(shape_build: Build, request: pytest.FixtureRequest) -> Build:
    """The build that shapes are put into; it is named on the row of the test."""
    named = ("subject.QEMU under test", f"{shape_build.label} {shape_build.version}")
    request.node.user_properties.append(named)
    return shape_build


@pytest.fixture
def observe(shape_qemu: Build) -> Observe:
    """Put a shape alone into QEMU; return what QEMU made of it, judged by the oracle."""
    return lambda shape: observe_shape(shape_qemu, shape)
