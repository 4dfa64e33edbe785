"""The named shapes are devices that can be served, and what their sources say."""

import pytest

from harness.device.config_space import CAP_MSIX
from harness.model import qat
from harness.model.pci import PciId
from harness.model.vfio.mapping import beside_table_pages
from harness.parse.config_space import parse_config
from harness.shapes.named.bench import function_of, region_facts
from harness.shapes.named.catalogue import ECAP_ARI, ECAP_REBAR, ECAP_SRIOV, NAMED, NamedShape

ALL = pytest.mark.parametrize("shape", NAMED.values(), ids=list(NAMED))


@ALL
def test_a_shape_is_a_device_with_its_identity(shape: NamedShape) -> None:
    config = parse_config(bytes(shape.device().config.data))

    assert (config.id, config.class_code) == (shape.id, shape.class_code)
    assert (config.revision, config.interrupt_pin) == (shape.revision, shape.interrupt_pin)


@ALL
def test_two_devices_of_a_shape_share_nothing(shape: NamedShape) -> None:
    one, other = shape.device(), shape.device()
    one.config.write(4, b"\x07\x00")

    assert other.config.read(4, 2) == b"\x00\x00"


@ALL
def test_msix_is_where_the_shape_says(shape: NamedShape) -> None:
    device, found = shape.device(), parse_config(bytes(shape.device().config.data)).msix

    assert (found is None) is (shape.msix is None)
    if found is not None and shape.msix is not None:
        assert found.offset == device.config.places[CAP_MSIX, False]
        assert (found.vectors, found.table_bar, found.table_offset) == (
            shape.msix.vectors,
            shape.msix.table_bar,
            shape.msix.table_offset,
        )


@ALL
def test_function_and_facts_come_from_the_declaration(shape: NamedShape) -> None:
    device = shape.device()
    function, facts = function_of(device), region_facts(device)

    assert [bar.index for bar in function.bars] == list(facts) == [b.index for b in shape.bars]
    assert all(facts[bar.index].mappable is bar.is_memory for bar in function.bars)


@ALL
def test_names_of_sockets_are_short_words(shape: NamedShape) -> None:
    assert shape.name.replace("-", "").isalnum() and len(shape.name) < 24
    assert shape.source and shape.title


def test_areas_of_64k_are_what_linux_with_such_pages_says() -> None:
    shape = NAMED["page-64k"]
    msix = function_of(shape.device()).msix
    assert msix is not None

    assert shape.bars[0].direct == beside_table_pages(shape.bars[0].size, msix.table, 65536)


def test_physical_igb_has_what_must_be_hidden() -> None:
    found = parse_config(bytes(NAMED["igb-pf"].device().config.data))

    assert {ECAP_ARI, ECAP_SRIOV} <= {c.id for c in found.capabilities if c.extended}
    assert found.total_vfs == 8


def test_resizable_bar_offers_more_sizes_than_it_has() -> None:
    device = NAMED["nvidia-3d"].device()
    config = bytes(device.config.data)
    at = next(c.offset for c in parse_config(config).capabilities if c.id == ECAP_REBAR)

    offered = int.from_bytes(config[at + 4 : at + 8], "little")
    assert offered.bit_count() == 4 and offered >> 4 & device.bars[0].size >> 20


def test_rom_begins_as_roms_do() -> None:
    rom = NAMED["igb-pf"].rom

    assert rom[:2] == b"\x55\xaa" and rom[2] * 512 == len(rom)


@pytest.mark.parametrize(("name", "pci_id"), [("qat-pf", qat.PF), ("qat-vf", qat.VF)])
def test_qat_is_as_the_release_notes_want_it(name: str, pci_id: PciId) -> None:
    shape = NAMED[name]
    assert shape.aer is not None and shape.msi is not None and shape.express is not None

    assert shape.id == pci_id
    assert shape.aer.uncorrectable_mask & qat.MUST_BE_MASKED == qat.MUST_BE_MASKED
    assert shape.msi.vectors == 1 and not shape.express.flr
