"""Windows over the BARs of particular devices: rules QRK-01 to QRK-11."""

from typing import Any

import pytest

from harness.model.pci import Bar, BarKind, Bdf, Capability, PciFunction, PciId
from harness.model.version import QemuVersion
from harness.model.vfio.quirks import QuirkContext, quirk_windows

GPU_BARS = (
    Bar(0, BarKind.MEM32, 0x100_0000),
    Bar(2, BarKind.MEM64, 0x1000_0000),
    Bar(4, BarKind.IO, 0x100),
    Bar(5, BarKind.IO, 0x80),
)


def windows(pci_id: str, *, class_code: int = 0x030000, **more: Any) -> set[str]:
    """``bar+offset/size name`` of each window."""
    function = PciFunction(
        Bdf.parse("0000:01:00.0"),
        PciId.parse(pci_id),
        class_code,
        more.pop("bars", GPU_BARS),
        config=bytes(more.pop("config_size", 4096)),
    )
    values: dict[str, Any] = {
        "vga": False,
        "no_geforce_quirks": False,
        "igd_gms": False,
        "nvidia_window": False,
    } | more
    version = QemuVersion.parse(values.pop("qemu", "10.0.2"))
    return {
        f"{w.bar}+{w.range.start:#x}/{w.range.size:#x} {w.name}"
        for w in quirk_windows(QuirkContext(function=function, qemu=version, **values))
    }


MIRROR = "0+0x88000/0x1000 vfio-nvidia-bar0-88000-mirror-quirk"
LEGACY = "0+0x1800/0x100 vfio-nvidia-bar0-1800-mirror-quirk"
SWITCHES = {
    "5+0x0/0x4 vfio-nvidia-bar5-master-quirk",
    "5+0x4/0x4 vfio-nvidia-bar5-enable-quirk",
}
WINDOW = {
    "5+0x8/0x4 vfio-nvidia-bar5-window-address-quirk",
    "5+0xc/0x4 vfio-nvidia-bar5-window-data-quirk",
}
ATI = {
    "4+0x0/0x4 vfio-ati-bar4-window-address-quirk",
    "4+0x4/0x4 vfio-ati-bar4-window-data-quirk",
    "2+0x4000/0x100 vfio-ati-bar2-4000-quirk",
}
RTL = {
    "2+0x70/0x4 vfio-rtl8168-window-data-quirk",
    "2+0x74/0x4 vfio-rtl8168-window-address-quirk",
}
GGC, BDSM, BDSM_64 = (
    "0+0x108040/0x2 vfio-igd-ggc-quirk",
    "0+0x1080c0/0x4 vfio-igd-bdsm-quirk",
    "0+0x1080c0/0x8 vfio-igd-bdsm-quirk",
)


@pytest.mark.parametrize(
    ("pci_id", "more", "expected"),
    [
        ("10de:1b80", {}, {MIRROR}),
        ("10de:1b80", {"vga": True}, {MIRROR, LEGACY, *SWITCHES}),
        ("10de:1b80", {"vga": True, "nvidia_window": True}, {MIRROR, LEGACY, *SWITCHES, *WINDOW}),
        ("10de:1b80", {"vga": True, "no_geforce_quirks": True}, set()),
        ("10de:1b80", {"vga": True, "bars": GPU_BARS[:3]}, {MIRROR, LEGACY}),
        ("10de:10f0", {"class_code": 0x040300}, set()),
        (
            "10de:0040",
            {"config_size": 256},
            {"0+0x88000/0x100 vfio-nvidia-bar0-88000-mirror-quirk"},
        ),
        ("1002:6819", {"vga": True}, ATI),
        ("1002:6819", {}, set()),
        ("1002:6819", {"vga": True, "bars": (Bar(2, BarKind.MEM32, 0x10000),)}, set()),
        ("10ec:8168", {"class_code": 0x020000}, RTL),
        ("10ec:8139", {"class_code": 0x020000}, set()),
        ("8086:4680", {}, {GGC, BDSM_64}),
        ("8086:1912", {}, {GGC, BDSM}),
        ("8086:5a84", {}, {GGC, BDSM}),
        ("8086:1912", {"qemu": "9.2.0"}, set()),
        ("8086:4680", {"qemu": "9.2.0"}, {BDSM_64}),
        ("8086:4680", {"qemu": "9.1.0"}, set()),
        ("8086:4680", {"qemu": "10.1.0"}, {BDSM_64}),
        ("8086:4680", {"qemu": "10.1.0", "igd_gms": True}, {GGC, BDSM_64}),
        ("8086:4680", {"class_code": 0x038000}, set()),
        ("8086:4680", {"class_code": 0x038000, "qemu": "10.1.0"}, {BDSM_64}),
        ("8086:10d3", {"class_code": 0x020000}, set()),
        ("1b36:0010", {"class_code": 0x010802, "vga": True}, set()),
    ],
)
def test_devices_have_their_windows_and_no_others(
    pci_id: str, more: dict[str, Any], expected: set[str]
) -> None:
    assert windows(pci_id, **more) == expected


def test_config_space_is_express_by_its_capability_if_it_was_read_in_part() -> None:
    function = PciFunction(Bdf.parse("01:00.0"), PciId(1, 2), 0, config=bytes(64))

    assert function.config_size == 256
    express = PciFunction(
        function.bdf, function.id, 0, capabilities=(Capability(0x10, 0x40),), config=bytes(64)
    )
    assert express.config_size == 4096
