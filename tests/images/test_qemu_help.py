"""QEMU's help texts."""

from harness.images.qemu_help import parse_devices, parse_names, parse_properties

DEVICES = """\
Controller/Bridge/Hub devices:
name "pcie-root-port", bus PCI, desc "PCI Express Root Port"

Storage devices:
name "nvme", bus PCI, desc "Non-Volatile Memory Express"
name "virtio-blk-pci", bus PCI, alias "virtio-blk"
"""

PROPERTIES = """\
vfio-pci options:
  acpi-index=<uint32>    -  (default: 0)
  host=<str>             - Address (bus/device/function) of the host device, example: 04:10.0
  x-no-mmap=<bool>       -  (default: false)
  x-msix-relocation=<OffAutoPCIBAR> - off/auto/bar0/bar1 (default: "off")
"""

MACHINES = """\
Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-10.0)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-10.0)
"""


def test_devices_are_known_by_name_and_alias() -> None:
    assert parse_devices(DEVICES) == {"pcie-root-port", "nvme", "virtio-blk-pci", "virtio-blk"}


def test_properties_are_read_without_their_types() -> None:
    assert parse_properties(PROPERTIES) == {"acpi-index", "host", "x-no-mmap", "x-msix-relocation"}


def test_names_are_first_words_and_the_heading_is_none() -> None:
    assert parse_names(MACHINES) == {"microvm", "pc", "q35"}
    assert parse_names("Accelerators supported in QEMU binary:\ntcg\nkvm\n") == {"tcg", "kvm"}
