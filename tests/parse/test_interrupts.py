"""/proc/interrupts of x86 and others, and differences between two readings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.parse.interrupts import parse_interrupts

X86 = """\
           CPU0       CPU1       
  0:         34          0  IR-IO-APIC    2-edge      timer
  8:          0          1  IR-IO-APIC    8-edge      rtc0
 16:          0          0  IR-IO-APIC   16-fasteoi   i801_smbus, ehci_hcd:usb1
 24:          0          0  DMAR-MSI    0-edge      dmar0
 25:       1234          7  IR-PCI-MSIX-0000:00:03.0    0-edge      nvme0q0
 26:          0        900  IR-PCI-MSIX-0000:00:03.0    1-edge      nvme0q1
 27:          5          0  IR-PCI-MSIX-0000:01:00.0    0-edge      vfio-msix[0](0000:01:00.0)
 28:          0          0  IR-PCI-MSI 524288-edge      eth0
 29:          0          0   PCI-MSI 1048576-edge    
NMI:          0          0   Non-maskable interrupts
LOC:      81372      75410   Local timer interrupts
ERR:          0
MIS:          0
PIN:          0          0   Posted-interrupt notification event
"""  # noqa: W291

ARM = """\
           CPU0       
 11:      12345     GICv3  27 Level     arch_timer
 45:         17     ITS-PCI-MSIX-0000:00:01.0   0 Edge      virtio0-config
IPI0:        10       Rescheduling interrupts
Err:          0
"""  # noqa: W291


def test_rows_of_x86() -> None:
    table = parse_interrupts(X86)

    row = table.named("nvme0q1")
    assert table.cpus == (0, 1)
    assert (row.number, row.counts, row.total) == (26, (0, 900), 900)
    assert (row.chip, row.hardware, row.trigger) == ("IR-PCI-MSIX-0000:00:03.0", 1, "edge")
    assert row.remapped
    assert not table.named("dmar0").remapped
    assert table.row(16).names == ("i801_smbus", "ehci_hcd:usb1")
    assert table.named("vfio-msix[0](0000:01:00.0)").total == 5
    assert [r.number for r in table.containing("0000:00:03.0")] == [25, 26]
    assert (table.row(29).names, table.row(29).hardware) == ((), 1048576)


def test_rows_of_the_architecture() -> None:
    table = parse_interrupts(X86)

    assert table.row("LOC").total == 81372 + 75410
    assert table.row("LOC").names == ("Local timer interrupts",)
    assert table.row("ERR").counts == (0,)
    assert table.row("NMI").number is None


def test_rows_of_arm() -> None:
    table = parse_interrupts(ARM)

    timer = table.named("arch_timer")
    assert (timer.chip, timer.hardware, timer.trigger) == ("GICv3", 27, "Level")
    assert table.named("virtio0-config").chip == "ITS-PCI-MSIX-0000:00:01.0"
    assert table.row("IPI0").total == 10


def test_name_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(KeyError, match="nvme0q1"):
        parse_interrupts(X86).named("nvme9q9")


def test_difference_counts_per_cpu() -> None:
    before = parse_interrupts(X86)
    after = parse_interrupts(X86.replace("0        900", "3        950"))

    assert after.since(before).named("nvme0q1").counts == (3, 50)
    assert after.since(before).named("nvme0q0").total == 0


def test_row_with_a_new_handler_counts_from_zero() -> None:
    before = parse_interrupts(X86)
    after = parse_interrupts(X86.replace("0        900", "0          4").replace("eth0", "eth1"))

    assert after.since(before).named("nvme0q1").total == 4
    assert after.since(before).named("eth1").total == 0


def test_cpu_that_came_online_counts_from_zero() -> None:
    one = parse_interrupts(" CPU0\n 1: 10 IO-APIC 1-edge kbd\n")
    two = parse_interrupts(" CPU0 CPU1\n 1: 12 5 IO-APIC 1-edge kbd\n")

    assert two.since(one).named("kbd").counts == (2, 5)
    assert one.since(one).named("kbd").counts == (0,)


@pytest.mark.parametrize("text", ["", "no header\n", " CPU0 CPU1\n 1: 5 IO-APIC 1-edge x\n"])
def test_what_is_no_table_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_interrupts(text)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=6))
def test_difference_to_itself_is_zero_and_to_nothing_is_all(
    counts: list[tuple[int, int]],
) -> None:
    rows = [
        f"{n:>3}: {a:>10} {b:>10}  IR-PCI-MSI {n}-edge      dev{n}\n"
        for n, (a, b) in enumerate(counts)
    ]
    table = parse_interrupts("   CPU0   CPU1\n" + "".join(rows))

    assert all(row.total == 0 for row in table.since(table).rows)
    assert table.since(parse_interrupts(" CPU0 CPU1\n")) == table
