"""What a guest sees of a device's configuration space."""

from dataclasses import replace
from typing import Final

import pytest

from harness.device.spec import ExpressSpec
from harness.machine.command import Device
from harness.model.pci import Capability
from harness.parse.config_space import parse_config
from harness.shapes.named.bench import Guest, NamedBench
from harness.shapes.named.catalogue import ECAP_ARI, ECAP_REBAR, ECAP_SRIOV, NAMED
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu

AER: Final = 0x01


def extended(config: bytes) -> dict[int, Capability]:
    """Return the extended capabilities by id."""
    return {c.id: c for c in parse_config(config).capabilities if c.extended}


def number(config: bytes, at: int) -> int:
    """Return 32 bits of *config*."""
    return int.from_bytes(config[at : at + 4], "little")


# -- hidden ------------------------------------------------------------------------------------


def check_hidden(config: bytes) -> None:
    """AER shows, SR-IOV and ARI do not."""
    found = set(extended(config))
    assert AER in found and not found & {ECAP_SRIOV, ECAP_ARI}, sorted(map(hex, found))


@pytest.mark.rule("MAP-36")
def test_sriov_and_ari_are_hidden(bench: NamedBench) -> None:
    """Of a physical function the guest sees AER, but neither SR-IOV nor ARI."""
    check_hidden(bench["igb-pf"].config_space())


@pytest.mark.negative_control("MAP-36")
def test_shown_sriov_is_noticed(bench: NamedBench) -> None:
    """The check fails on what the device itself has."""
    with must_fail():
        check_hidden(bytes(bench["igb-pf"].device.config.data))


# -- resizable BARs ----------------------------------------------------------------------------


def check_one_size(config: bytes, size: int) -> None:
    """Resizable BAR offers the size that is set, and no other (PCIe 6.0, 7.8.6)."""
    at = extended(config)[ECAP_REBAR].offset
    offered, control = number(config, at + 4), number(config, at + 8)
    exponent = (size >> 20).bit_length() - 1
    assert offered >> 4 == 1 << exponent, f"offers {offered:#x}"
    assert control >> 8 & 0x3F == exponent, f"set is {control:#x}"


@pytest.mark.rule("MAP-29")
def test_resizable_bar_offers_its_size(bench: NamedBench) -> None:
    """A device with Resizable BAR shows it with the current size alone."""
    card = bench["nvidia-3d"]

    check_one_size(card.config_space(), card.device.bars[0].size)


@pytest.mark.rule("MAP-29")
def test_resizable_bar_is_read_only(bench: NamedBench) -> None:
    """What the guest writes to its control register changes nothing."""
    card = bench["nvidia-3d"]
    before = card.config_space()
    control = extended(before)[ECAP_REBAR].offset + 8

    card.write_extended(control, 6 << 8)

    assert number(card.config_space(), control) == number(before, control)
    check_one_size(card.config_space(), card.device.bars[0].size)


@pytest.mark.negative_control("MAP-29")
def test_other_sizes_are_noticed(bench: NamedBench) -> None:
    """The check fails on what the device itself offers: four sizes."""
    card = bench["nvidia-3d"]

    with must_fail():
        check_one_size(bytes(card.device.config.data), card.device.bars[0].size)


# -- on a conventional bus ---------------------------------------------------------------------

BRIDGE: Final = Device("pci-bridge", "bridge", "pcie.0", "0x1e", {"chassis_nr": 1})
BUS: Final = 1


def behind(serve_to_qemu: ServeToQemu, *, bridge: bool) -> bytes:
    """Serve a device on the root bus or behind a PCI bridge; return its configuration space."""
    device = replace(NAMED["qat-vf"], express=ExpressSpec()).device()
    if not bridge:
        return serve_to_qemu(Guest("device", device))["device"].config_space()
    guest = Guest("device", device, bus="bridge", addr="0x1")
    machine = serve_to_qemu(guest, others=[BRIDGE])
    machine.qtest.config_write(0, 0x1E, 0, 0x18, BUS << 16 | BUS << 8)
    return machine["device"].config_space(BUS)


def check_conventional(config: bytes) -> None:
    """The device is there, and nobody answers beyond its first 256 bytes."""
    assert number(config, 0) == 0x37C9_8086
    assert set(config[256:]) == {0xFF}


@pytest.mark.rule("MAP-37")
def test_extended_space_is_hidden_behind_a_pci_bridge(serve_to_qemu: ServeToQemu) -> None:
    """On a conventional bus a PCI Express device has 256 bytes of configuration space."""
    check_conventional(behind(serve_to_qemu, bridge=True))


@pytest.mark.negative_control("MAP-37")
def test_extended_space_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails on the root bus of q35, which is PCI Express."""
    with must_fail():
        check_conventional(behind(serve_to_qemu, bridge=False))
