"""The dispatch tree, ``info mtree -f -d``: what can be believed of it."""

from dataclasses import replace

import pytest

from harness.lab.nested import Nested
from harness.machine.machine import Machine
from harness.model.dispatch import Dispatch, PhysicalSection
from harness.model.memory_map import FlatView
from harness.parse.mtree import parse_mtree
from harness.testing import must_fail

PAGE = 0x1000
"""Of the guest: x86 has no other."""
BY_INDEX = ("unassigned", "not dirty", "ROM", "watch")
"""Labels of the first four sections (``mtree_print_dispatch()`` in system/physmem.c)."""

Trees = list[tuple[FlatView, Dispatch]]
both = pytest.mark.parametrize("trees", ["paused", "resident"], indirect=True)


def trees_of(machine: Machine) -> Trees:
    """Return each flat view that has rows, with its dispatch tree, vCPUs stopped."""
    with machine.stopped():
        dump = parse_mtree(machine.qmp.hmp("info mtree -f -d"))
    assert dump.map is not None
    pairs = zip(dump.map, dump.dispatches, strict=True)
    return [(view, dispatch) for view, dispatch in pairs if dispatch is not None]


@pytest.fixture
def paused_trees(paused: Machine) -> Trees:
    """What the paused machine says."""
    return trees_of(paused)


@pytest.fixture
def trees(request: pytest.FixtureRequest, paused_trees: Trees, nested: Nested) -> Trees:
    """What a machine says: ``paused`` or ``resident``, by parameter."""
    return {"paused": paused_trees, "resident": trees_of(nested.machine)}[request.param]


def pages_of(section: PhysicalSection) -> bool:
    """Say whether the section is one page (the first one, of nobody, is the whole space)."""
    return section.last - section.start == PAGE - 1


def shared_pages(view: FlatView) -> set[int]:
    """Return the pages that a row begins or ends in the middle of."""
    edges = [edge for row in view.regions for edge in (row.range.start, row.range.end)]
    return {edge - edge % PAGE for edge in edges if edge % PAGE}


def check_subpages(trees: Trees) -> None:
    """In each tree the sections without a name are the pages that rows share."""
    wrong = [
        (sorted(view.names)[:2], sorted(map(hex, found ^ expected)))
        for view, dispatch in trees
        for found in [{section.start for section in dispatch.subpages if pages_of(section)}]
        for expected in [shared_pages(view)]
        if found != expected
    ]
    assert any(shared_pages(view) for view, _ in trees), "no page is shared"
    assert not wrong, wrong


@both
@pytest.mark.rule("MT-29")
def test_shared_pages_are_sections_without_a_name(trees: Trees) -> None:
    """A page shared by several regions is one section without a name, a page long."""
    check_subpages(trees)


@pytest.mark.negative_control("MT-29")
def test_a_shared_page_too_few_is_noticed(paused_trees: Trees) -> None:
    """Trees whose sections all have names fail the check."""
    named = [
        (view, Dispatch(tuple(replace(s, name=s.name or "named") for s in dispatch.sections)))
        for view, dispatch in paused_trees
    ]

    with must_fail():
        check_subpages(named)


def check_labelled_by_index(trees: Trees) -> None:
    """The first four sections have their labels by number, regions with names among them."""
    first = [dispatch.sections[: len(BY_INDEX)] for _, dispatch in trees]
    wrong = [s for four in first for s, by in zip(four, BY_INDEX, strict=False)
             if by not in s.labels]  # fmt: skip
    assert not wrong, wrong[:4]
    assert any(section.name for four in first for section in four[1:]), "no region is labelled"


@both
@pytest.mark.rule("MT-28")
def test_labels_follow_the_number_of_a_section(trees: Trees) -> None:
    """The first four sections are labelled by their numbers, so labels say nothing of them."""
    check_labelled_by_index(trees)


@pytest.mark.negative_control("MT-28")
def test_labels_of_other_sections_are_noticed(paused_trees: Trees) -> None:
    """Trees whose second section comes first fail the check."""
    turned = [
        (view, Dispatch(dispatch.sections[1::-1] + dispatch.sections[2:]))
        for view, dispatch in paused_trees
    ]

    with must_fail():
        check_labelled_by_index(turned)
