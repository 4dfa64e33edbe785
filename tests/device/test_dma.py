"""What a device may touch of its client's memory, and how it gets there."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device import protocol
from harness.device.client import Client
from harness.device.device import Device, DmaFault
from harness.device.dma import MAX_FILES, DmaMap
from harness.device.protocol import Command, Refused, RequestFailed
from harness.device.server import Served, serve
from harness.device.spec import BarSpec
from harness.errors import WaitTimeout
from harness.model.pci import BarKind

SIZE = 0x10000
BASE = 0x1_0000_0000


def memory_file(size: int = SIZE, *, sealed: bool) -> int:
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


@pytest.fixture(params=[True, False], ids=["mapped", "by-system-calls"])
def guest_memory(request: pytest.FixtureRequest) -> Iterator[int]:
    fd = memory_file(sealed=request.param)
    yield fd
    os.close(fd)


def test_memory_with_a_descriptor_is_read_and_written_without_the_client(
    client: Client, device: Device, guest_memory: int
) -> None:
    client.dma_map(BASE, 0x8000, fd=guest_memory, offset=0x2000)

    device.dma_write(BASE + 0x10, b"hello")
    os.pwrite(guest_memory, b"world", 0x2100)

    assert os.pread(guest_memory, 5, 0x2010) == b"hello"
    assert device.dma_read(BASE + 0x100, 5) == b"world"
    assert client.requests == []


def test_an_access_may_span_windows_that_touch(
    client: Client, device: Device, guest_memory: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory, offset=0x1000)
    client.dma_map(BASE + 0x1000, 0x1000, fd=guest_memory, offset=0x5000)

    device.dma_write(BASE + 0xFFE, b"abcd")

    assert os.pread(guest_memory, 2, 0x1FFE) == b"ab"
    assert os.pread(guest_memory, 2, 0x5000) == b"cd"
    assert device.dma_read(BASE + 0xFFE, 4) == b"abcd"


@pytest.mark.parametrize(
    ("address", "count"),
    [(BASE - 1, 2), (BASE + 0xFFF, 2), (BASE + 0x1000, 1), (0, 8), (1 << 64, 1), (-1, 1)],
)
def test_what_is_not_mapped_cannot_be_touched(
    client: Client, device: Device, guest_memory: int, address: int, count: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)

    with pytest.raises(DmaFault):
        device.dma_read(address, count)
    with pytest.raises(DmaFault):
        device.dma_write(address, b"x" * count)


def test_a_write_that_faults_has_written_nothing(
    client: Client, device: Device, guest_memory: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)

    with pytest.raises(DmaFault):
        device.dma_write(BASE + 0xFF0, b"x" * 0x20)

    assert os.pread(guest_memory, 0x10, 0xFF0) == bytes(0x10)


def test_a_window_may_be_read_only(client: Client, device: Device, guest_memory: int) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory, flags=protocol.DMA_READABLE)

    assert device.dma_read(BASE, 4) == bytes(4)
    with pytest.raises(DmaFault, match="not mapped writable"):
        device.dma_write(BASE, b"x")


def test_a_window_may_be_write_only(client: Client, device: Device, guest_memory: int) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory, flags=protocol.DMA_WRITABLE)

    device.dma_write(BASE, b"x")
    with pytest.raises(DmaFault, match="not mapped readable"):
        device.dma_read(BASE, 1)


def test_after_unmap_the_memory_is_out_of_reach(
    client: Client, device: Device, guest_memory: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)
    client.dma_unmap(BASE, 0x1000)

    with pytest.raises(DmaFault):
        device.dma_read(BASE, 1)


def test_all_can_be_unmapped_at_once(client: Client, device: Device, guest_memory: int) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)
    client.dma_map(0, 0x1000, fd=guest_memory)
    client.dma_unmap(0, 0, flags=protocol.UNMAP_ALL)

    assert device.dma.windows == ()


def test_after_the_client_is_gone_its_memory_is_out_of_reach(
    served: Served, device: Device, guest_memory: int
) -> None:
    with Client(served.socket) as client:
        client.dma_map(BASE, 0x1000, fd=guest_memory)
    with Client(served.socket) as client:
        client.info()
        with pytest.raises(DmaFault):
            device.dma_read(BASE, 1)


@pytest.mark.parametrize(
    ("address", "size"), [(BASE, 0x1000), (BASE + 0xFFF, 2), (BASE - 1, 2), (BASE - 1, 0x4000)]
)
def test_nothing_is_mapped_over_something(
    client: Client, guest_memory: int, address: int, size: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)

    with pytest.raises(RequestFailed) as refused:
        client.dma_map(address, size, fd=guest_memory)

    assert refused.value.number == errno.EEXIST


@pytest.mark.parametrize(("address", "size"), [(0, 1 << 63), (BASE, 0x3000), (BASE, 0x2000)])
def test_a_range_is_unmapped_with_all_that_is_inside(
    client: Client, device: Device, guest_memory: int, address: int, size: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)
    client.dma_map(BASE + 0x1000, 0x1000, fd=guest_memory)

    client.dma_unmap(address, size)

    assert device.dma.windows == ()


def test_unmapping_where_nothing_is_mapped_is_no_error(client: Client) -> None:
    client.dma_unmap(BASE, 0x1000)


@pytest.mark.parametrize(
    ("address", "size"),
    [(BASE, 0x800), (BASE + 0x800, 0x800), (BASE + 0x400, 0x400), (BASE - 0x1000, 0x1001)],
)
def test_a_mapping_is_not_cut_in_two(
    client: Client, device: Device, guest_memory: int, address: int, size: int
) -> None:
    client.dma_map(BASE, 0x1000, fd=guest_memory)

    with pytest.raises(RequestFailed) as refused:
        client.dma_unmap(address, size)

    assert refused.value.number == errno.EINVAL
    assert len(device.dma.windows) == 1


@pytest.mark.parametrize(
    ("address", "size", "offset"),
    [(BASE, 0, 0), ((1 << 64) - 0x1000, 0x2000, 0), (BASE, SIZE + 1, 0), (BASE, 0x1000, SIZE)],
)
def test_ranges_that_cannot_be_are_refused(
    client: Client, guest_memory: int, address: int, size: int, offset: int
) -> None:
    with pytest.raises(RequestFailed) as refused:
        client.dma_map(address, size, fd=guest_memory, offset=offset)

    assert refused.value.number == errno.EINVAL


def test_a_file_that_shrinks_is_a_fault_and_not_our_end(client: Client, device: Device) -> None:
    fd = memory_file(sealed=False)
    client.dma_map(BASE, SIZE, fd=fd)
    os.ftruncate(fd, 0)

    with pytest.raises(DmaFault, match="ends before"):
        device.dma_read(BASE, 8)
    os.close(fd)


def test_a_pipe_is_no_memory(client: Client) -> None:
    ends = os.pipe()

    with pytest.raises(RequestFailed):
        client.dma_map(BASE, 0x1000, fd=ends[0])
    for fd in ends:
        os.close(fd)


def test_only_so_many_files_are_held() -> None:
    windows = DmaMap()
    for number in range(MAX_FILES):
        windows.add(number * 0x1000, 0x1000, 3, 0, [memory_file(sealed=True)])
    extra = memory_file(sealed=True)

    with pytest.raises(Refused, match="memory files"):
        windows.add(BASE, 0x1000, 3, 0, [extra])
    os.close(extra)
    windows.clear()


def test_one_file_in_many_windows_is_held_once() -> None:
    fd = memory_file(sealed=True)
    windows = DmaMap()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(8):
        fds = [os.dup(fd)]
        windows.add(number * 0x1000, 0x1000, 3, 0, fds)
        for unused in fds:
            os.close(unused)
    held = len(os.listdir("/proc/self/fd")) - before
    for number in range(8):
        windows.remove(number * 0x1000, 0x1000)

    assert held == 1
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(1, 4), st.booleans()), min_size=1, max_size=20
    )
)
def test_the_map_is_what_a_table_of_pages_would_be(steps: list[tuple[int, int, bool]]) -> None:
    windows = DmaMap()
    pages: dict[int, int] = {}  # page: first page of its window
    sizes: dict[int, int] = {}
    for page, count, adding in steps:
        taken = any(p in pages for p in range(page, page + count))
        inside = {first for p, first in pages.items() if p in range(page, page + count)}
        whole = all(page <= f and f + sizes[f] <= page + count for f in inside)
        if adding:
            try:
                windows.add(page << 12, count << 12, 3, 0, [])
            except Refused as refused:
                assert refused.number == errno.EEXIST
                assert taken
            else:
                assert not taken
                sizes[page] = count
                pages.update((p, page) for p in range(page, page + count))
        else:
            try:
                windows.remove(page << 12, count << 12)
            except Refused:
                assert not whole
            else:
                assert whole
                sizes = {f: n for f, n in sizes.items() if f not in inside}
                pages = {p: f for p, f in pages.items() if f not in inside}
    assert [(w.address >> 12, w.size >> 12) for w in windows.windows] == sorted(sizes.items())


class Copier(Device):
    """Copies from an address to the next page when told, in the handler or after it."""

    bars = (BarSpec(0, BarKind.MEM32, 0x1000),)
    obeys_bus_master = False

    def write(self, bar: int, offset: int, width: int, value: int) -> None:
        if offset == 0:
            self.copy(value)
        else:
            self.later(lambda: self.copy(value))

    def copy(self, address: int) -> None:
        self.dma_write(address + 0x1000, self.dma_read(address, 0x20))


@pytest.mark.parametrize("register", [0, 8], ids=["in-the-handler", "later"])
def test_memory_without_a_descriptor_is_reached_by_message(register: int) -> None:
    with serve(Copier()) as served, Client(served.socket) as client:
        client.dma_map(BASE, 0x2000)
        client.memory[BASE][:5] = b"hello"

        client.write(0, register, BASE.to_bytes(8, "little"))
        while len(client.requests) < 2:
            assert client.serve_for(10)

        assert client.memory[BASE][0x1000:0x1005] == b"hello"
        assert client.requests == [Command.DMA_READ, Command.DMA_WRITE]


def test_a_fault_of_work_left_for_later_is_kept_and_the_client_served_on() -> None:
    with serve(Copier()) as served, Client(served.socket) as client:
        client.write(0, 8, bytes(8))
        assert client.info()

        assert [type(failure) for failure in served.failures] == [DmaFault]


def test_large_transfers_by_message_are_cut_to_what_the_client_takes(
    client: Client, device: Device
) -> None:
    size = 3 << 20
    client.dma_map(BASE, size)
    client.memory[BASE][:] = bytes(range(256)) * (size // 256)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(device.dma_read(BASE, size)))
    reader.start()
    while client.serve_for(0.5):
        pass
    reader.join()

    assert read == [bytes(client.memory[BASE])]
    assert client.requests == [Command.DMA_READ] * 3


def test_a_client_that_refuses_is_an_error_to_the_device(client: Client, device: Device) -> None:
    client.dma_map(BASE, 0x1000)
    client.memory.clear()
    seen: list[BaseException] = []

    def read() -> None:
        try:
            device.dma_read(BASE, 8)
        except RequestFailed as failed:
            seen.append(failed)

    reader = threading.Thread(target=read)
    reader.start()
    client.serve_for(10)
    reader.join()

    assert [failed.number for failed in seen] == [errno.EFAULT]  # type: ignore[attr-defined]


def test_a_client_that_does_not_answer_is_told_of(client: Client, device: Device) -> None:
    client.dma_map(BASE, 0x1000)
    link = device.link
    assert link is not None

    with pytest.raises(WaitTimeout, match="DMA_READ"):
        link.call(Command.DMA_READ, protocol.DMA_ACCESS.pack(BASE, 8), 0.05)  # type: ignore[attr-defined]


def test_without_a_client_there_is_no_dma(device: Device) -> None:
    with pytest.raises(DmaFault, match="no client"):
        device.dma_read(BASE, 8)


def test_a_device_that_is_no_bus_master_does_no_dma(served: Served, guest_memory: int) -> None:
    served.device.obeys_bus_master = True
    with Client(served.socket) as client:
        client.dma_map(BASE, 0x1000, fd=guest_memory)

        with pytest.raises(DmaFault, match="bus mastering is off"):
            served.device.dma_read(BASE, 1)
        client.write(protocol.CONFIG_REGION, 4, b"\4\0")
        assert served.device.dma_read(BASE, 1) == b"\0"


def test_a_message_can_be_forced_where_there_is_a_descriptor(guest_memory: int) -> None:
    with serve(Copier()) as served, Client(served.socket) as client:
        client.dma_map(BASE, 0x1000, fd=guest_memory)
        client.memory[BASE] = bytearray(b"by message")
        read: list[bytes] = []
        reader = threading.Thread(
            target=lambda: read.append(served.device.dma_read(BASE, 10, by_message=True))
        )
        reader.start()
        client.serve_for(10)
        reader.join()

    assert read == [b"by message"]
