"""A host's state from its sysfs: what a kernel shows is enough to go on from."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.agreement_plan import sample
from harness.errors import ParseError
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import DEFAULT_DRIVER, VFIO_AP, ApKernel, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.operation import booted, create_mdev, run, set_apmask
from harness.model.ap.sysfs import BUS, MATRIX, links, texts
from harness.parse.ap_tree import read_recording, read_tree

RECORDED = Path(__file__).parents[2] / "docs" / "examples" / "ap-host.txt"
HARDWARE = ApHardware(
    cards={4: Card(), 5: Card(mode=Mode.CCA), 6: Card(10, Mode.EP11)},
    domains=ApMask.of([4, 0x47]),
    control_domains=ApMask.of([4]),
)


def tree(state: ApKernel) -> dict[str, str]:
    """Return the files of a host in *state*, where a real one has them."""
    files = {}
    for path, text in texts(state).items():
        place, _, name = path.removeprefix(f"{BUS}/devices/").rpartition("/")
        if path.startswith(f"{BUS}/devices/card"):
            files[f"sys/devices/ap/{place}/{name}"] = text
        elif path.startswith(f"{BUS}/devices/"):
            files[f"sys/devices/ap/card{place[:2]}/{place}/{name}"] = text
        else:
            files[path.removeprefix("/")] = text
    for path, driver in links(state).items():
        name = path.split("/")[-2]
        if driver is not None:
            files[f"sys/devices/ap/card{name[:2]}/{name}/driver"] = driver
    for number, card in state.cards.items():
        files[f"sys/devices/ap/card{number:02x}/ap_functions"] = f"0x{card.mode:08X}\n"
    return files


def after(state: ApKernel, seed: int, steps: int) -> ApKernel:
    """Return *state* after random operations, before they are cleaned up."""
    done = sample(state, Random(seed), steps)[:steps]
    return done[-1].outcome.state if done else state


@given(st.integers(0, 2**32), st.integers(0, 30), st.sampled_from([(6, 12), (7, 2)]))
def test_a_host_is_read_as_it_shows_itself(
    seed: int, steps: int, version: tuple[int, int]
) -> None:
    state = after(booted(HARDWARE, Traits.of_version(version)), seed, steps)

    found = read_tree(tree(state), version)

    assert texts(found) == texts(state)
    assert links(found) == links(state)
    assert {mdev.uuid: mdev.linked for mdev in found.mdevs} == {
        mdev.uuid: mdev.linked for mdev in state.mdevs
    }


def test_a_kernel_before_ap_config_is_read_by_its_lists() -> None:
    uuid = "62177883-f1bb-47f0-914d-32a22e3a8804"
    state = run(booted(HARDWARE, Traits.of_version((6, 1))), create_mdev(uuid)).state
    files = tree(state)
    del files[f"{MATRIX[1:]}/{uuid}/ap_config"]
    files[f"{MATRIX[1:]}/{uuid}/matrix"] = "05.0004\n"
    files[f"{MATRIX[1:]}/{uuid}/control_domains"] = "0004\n"

    (mdev,) = read_tree(files, (6, 1)).mdevs

    assert list(mdev.assigned) == [Apqn(5, 4)]
    assert list(mdev.assigned.control_domains) == [4]


def test_without_vfio_ap_there_are_no_mdevs() -> None:
    alone = booted(HARDWARE, Traits.of_version((6, 12)), drivers=(DEFAULT_DRIVER,))

    assert read_tree(tree(alone), (6, 12)).drivers == (DEFAULT_DRIVER,)
    assert VFIO_AP in read_tree(tree(booted(HARDWARE, alone.traits)), (6, 12)).drivers


def test_an_attribute_says_more_than_a_version() -> None:
    state = booted(HARDWARE, Traits.of_version((7, 2)))

    assert read_tree(tree(state), (6, 12)).traits.driver_override
    files = tree(state) | {"sys/devices/ap/card05/05.0004/driver_override": "(null)\n"}
    assert read_tree(files, (7, 2)).overrides == 0


def test_masks_of_a_host_without_qci_follow_from_its_queues() -> None:
    state = set_apmask("-5\n").apply(booted(HARDWARE, Traits.of_version((6, 12)))).state
    files = tree(state) | {"sys/bus/ap/ap_usage_domain_mask": "not supported\n"}

    assert read_tree(files, (6, 12)).hardware.domains == HARDWARE.domains


@given(st.integers(0, 2**32), st.booleans())
def test_a_recording_is_as_good_as_a_tree(seed: int, rooted: bool) -> None:
    state = after(booted(HARDWARE, Traits.of_version((7, 2))), seed, 20)
    files = tree(state)
    sections = []
    for path, text in files.items():
        shown = f"../../../bus/ap/drivers/{text}\n" if path.endswith("/driver") else text
        sections.append(f"==> {'/' if rooted else ''}{path} <==\n{shown}")

    found = read_tree(read_recording("\n".join(sections)), (7, 2))

    assert texts(found) == texts(state)
    assert links(found) == links(state)


def test_a_real_kernel_shows_what_the_model_of_it_shows() -> None:
    """Linux 6.12.107 with modelled adapters, one queue taken from vfio_ap by hand."""
    recorded = {
        path: text
        for path, text in read_recording(RECORDED.read_text()).items()
        if not path.endswith("/ap_functions")  # the model knows one of its bits
    }

    shown = tree(read_tree(recorded, (6, 12)))

    assert {path: text for path, text in shown.items() if path in recorded} == {
        path: text for path, text in recorded.items() if path in shown
    }
    assert len([path for path in recorded if path in shown]) > 50


def test_a_queue_without_driver_has_an_empty_section() -> None:
    assert read_recording("==> /sys/a/driver <==\n==> /sys/b <==\n\n") == {"sys/b": ""}
    assert read_recording("nothing\n") == {}


def test_a_tree_without_an_ap_bus_is_told() -> None:
    with pytest.raises(ParseError, match="no AP bus"):
        read_tree({"sys/bus/pci/devices": ""}, (6, 12))
