"""The server as its clients see it: what it says of a device, and how accesses arrive."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness.device import protocol
from harness.device.client import Client
from harness.device.device import Device
from harness.device.protocol import Command, PeerGone, RequestFailed
from harness.device.server import Served, serve
from harness.device.spec import BarSpec, Direct, MsixSpec
from harness.errors import ConfigError
from harness.model.address import AddressRange
from harness.model.pci import BarKind
from harness.wait import wait_until


def test_the_device_says_that_it_is_a_resettable_pci_device(client: Client) -> None:
    assert client.info() == (protocol.DEVICE_RESET | protocol.DEVICE_PCI, 9, 5)


def test_a_device_that_cannot_be_reset_says_so_and_refuses() -> None:
    class Stubborn(Device):
        resettable = False

    with serve(Stubborn()) as served, Client(served.socket) as client:
        assert client.info()[0] == protocol.DEVICE_PCI
        with pytest.raises(RequestFailed) as refused:
            client.reset()
        assert refused.value.number == errno.ENOTSUP


@pytest.mark.parametrize(
    ("index", "size", "flags"),
    [
        (0, 0x1000, 3),
        (1, 0x20, 3),
        (3, 0, 0),
        (protocol.ROM_REGION, 4096, 1),
        (protocol.CONFIG_REGION, 4096, 3),
        (protocol.VGA_REGION, 0, 0),
    ],
)
def test_a_trapped_region_has_its_size_and_no_descriptor(
    client: Client, index: int, size: int, flags: int
) -> None:
    info = client.region_info(index)

    assert (info.size, info.flags, info.areas, info.fd) == (size, flags, (), -1)


def test_a_direct_region_is_the_memory_of_the_device(client: Client, device: Device) -> None:
    info = client.region_info(2)
    with mmap.mmap(info.fd, info.size, offset=info.offset) as mapping:
        mapping[0x123] = 0x42
    os.close(info.fd)

    assert info.mappable
    assert info.areas == ()
    assert device.memory(2)[0x123] == 0x42
    assert client.read(2, 0x123, 1) == b"\x42"


def test_direct_areas_are_listed_in_a_capability(client: Client) -> None:
    info = client.region_info(4)
    os.close(info.fd)

    assert info.areas == (AddressRange(0x1000, 0x1000), AddressRange(0x4000, 0x2000))


def test_a_client_with_a_small_buffer_learns_what_it_needs(client: Client) -> None:
    size = protocol.REGION_INFO.size

    reply = client.ask(Command.GET_REGION_INFO, protocol.REGION_INFO.pack(size, 0, 4, 0, 0, 0))

    needed, flags, _, cap_offset, _, _ = protocol.REGION_INFO.unpack(reply)
    assert (
        needed == size + protocol.CAPABILITY.size + protocol.SPARSE.size + 2 * protocol.AREA.size
    )
    assert flags & protocol.REGION_CAPS
    assert cap_offset == size  # QEMU finds a capability at 0 invalid, even when it is not sent


@pytest.mark.parametrize(
    ("direct", "capabilities"),
    [
        (False, (protocol.CAP_MSIX_MAPPABLE,)),
        (
            (AddressRange(0x1000, 0x1000),),
            (protocol.CAP_SPARSE_MMAP, protocol.CAP_MSIX_MAPPABLE),
        ),
    ],
)
def test_a_table_that_may_be_mapped_is_said_in_a_capability(
    direct: Direct, capabilities: tuple[int, ...]
) -> None:
    class Mappable(Device):
        bars = (BarSpec(0, BarKind.MEM32, 0x2000, direct=direct),)
        msix = MsixSpec(4, mappable=True)

    with serve(Mappable()) as served, Client(served.socket) as client:
        info = client.region_info(0)
        if info.fd >= 0:
            os.close(info.fd)

    assert info.capabilities == capabilities
    assert info.areas == (direct or ())


def test_the_memory_of_a_region_cannot_be_shrunk_by_a_client(client: Client) -> None:
    info = client.region_info(2)
    with pytest.raises(PermissionError):
        os.ftruncate(info.fd, 0)
    os.close(info.fd)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_an_access_reaches_the_device_with_its_offset_and_width(
    client: Client, device: Device, width: int
) -> None:
    client.write(0, 0x100, bytes(range(1, width + 1)))

    assert client.read(0, 0x100, width) == bytes(range(1, width + 1))
    assert device.log.count(0, offset=0x100, width=width, operation="write") == 1
    assert device.log.count(0, offset=0x100, width=width, operation="read") == 1


def test_an_odd_access_is_split_as_a_bus_would(client: Client, served: Served) -> None:
    client.write(0, 0x101, b"abcdefg")

    assert list(served.device.writes) == [  # type: ignore[attr-defined]
        (0, 0x101, 1, 0x61),
        (0, 0x102, 2, 0x6362),
        (0, 0x104, 4, 0x67666564),
    ]
    assert client.read(0, 0x101, 7) == b"abcdefg"


def test_registers_have_handlers(client: Client) -> None:
    client.write(0, 0x10, (5).to_bytes(4, "little"))
    client.write(0, 0x10, (7).to_bytes(4, "little"))

    assert client.read(0, 0x10, 4) == (12).to_bytes(4, "little")


def test_a_handler_that_raises_is_an_io_error_to_the_client_and_kept_for_the_author(
    client: Client, served: Served
) -> None:
    with pytest.raises(RequestFailed) as failed:
        client.read(0, 0x20, 4)

    assert failed.value.number == errno.EIO
    assert [str(failure) for failure in served.failures] == ["this register is broken"]
    assert client.read(0, 0x10, 4) == bytes(4)


def test_work_that_fails_keeps_no_other_work_from_being_done(
    client: Client, served: Served, device: Device
) -> None:
    done: list[int] = []
    device.later(lambda: done.append(1 // 0))
    device.later(lambda: done.append(1))

    client.info()

    wait_until("it is done", lambda: done == [1], timeout=10)
    assert isinstance(served.failures[0], ZeroDivisionError)


def test_the_rom_is_padded_with_ones(client: Client, device: Device) -> None:
    assert client.read(protocol.ROM_REGION, 0, 4096) == device.rom.ljust(4096, b"\xff")


def test_writes_to_the_rom_are_lost(client: Client, device: Device) -> None:
    client.write(protocol.ROM_REGION, 0, b"zz")

    assert client.read(protocol.ROM_REGION, 0, 2) == device.rom[:2]


def test_a_posted_write_is_done_before_a_later_read(client: Client, served: Served) -> None:
    for _ in range(100):
        client.write(0, 0x10, b"\1\0\0\0", post=True)

    assert client.read(0, 0x10, 4) == b"\x64\0\0\0"


def test_many_writes_come_in_one_message(client: Client, served: Served) -> None:
    client.write_many([(0, 0x10, b"\2\0\0\0"), (0, 0x200, b"ab"), (2, 8, b"12345678")])

    assert client.read(0, 0x10, 1) == b"\2"
    assert client.read(0, 0x200, 2) == b"ab"
    assert client.read(2, 8, 8) == b"12345678"


def test_resets_are_counted_by_cause(client: Client, served: Served) -> None:
    express = served.device.config.places[0x10, False]
    client.write(0, 0x10, b"\1\0\0\0")

    client.reset()
    client.write(protocol.CONFIG_REGION, express + 8, b"\0\x80")

    assert served.device.resets == {"message": 1, "flr": 1}
    assert served.resets == 2
    assert client.read(0, 0x10, 1) == b"\0"


def test_leaving_d3_resets_a_device_that_says_so(client: Client, served: Served) -> None:
    power = served.device.config.places[0x01, False]
    client.write(protocol.CONFIG_REGION, power + 4, b"\3\0")
    client.write(protocol.CONFIG_REGION, power + 4, b"\0\0")

    assert served.device.resets == {"power": 1}


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (Command.DIRTY_PAGES, bytes(8)),
        (Command.DEVICE_FEATURE, bytes(8)),
        (Command.MIG_DATA_READ, bytes(8)),
        (Command.MIG_DATA_WRITE, bytes(8)),
    ],
)
def test_migration_is_refused_as_not_supported(
    client: Client, command: Command, payload: bytes
) -> None:
    with pytest.raises(RequestFailed) as refused:
        client.ask(command, payload)

    assert refused.value.number == errno.ENOTSUP


def test_a_device_outlives_its_client(served: Served) -> None:
    with Client(served.socket) as first:
        first.write(0, 0x10, b"\3\0\0\0")
    with Client(served.socket) as second:
        assert second.read(0, 0x10, 1) == b"\3"

    assert served.clients == 2


def test_the_device_hears_of_clients(served: Served) -> None:
    with Client(served.socket):
        pass
    wait_until("the client is gone", lambda: not served.connected, timeout=10)

    assert served.device.events == ["connected", "disconnected"]  # type: ignore[attr-defined]


def test_a_client_that_is_dropped_hears_it(served: Served, client: Client) -> None:
    served.disconnect()

    with pytest.raises(PeerGone):
        client.info()


def test_closing_leaves_nothing(device: Device) -> None:
    served = serve(device)
    client = Client(served.socket)
    served.close()
    with pytest.raises(PeerGone):
        client.info()
    client.close()

    assert not served.socket.parent.exists()


def test_the_socket_is_in_a_private_directory(served: Served) -> None:
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o700


def test_a_path_that_is_too_long_for_a_socket_is_told(device: Device, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        serve(device, tmp_path / ("x" * 120))


def test_a_path_that_cannot_be_bound_is_told(device: Device, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        serve(device, tmp_path / "missing" / "socket")


def test_the_socket_of_a_server_that_is_no_more_is_taken_over(
    device: Device, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with serve(device, path), Client(path) as client:
        assert client.info()


def test_the_socket_of_a_server_that_lives_is_left_alone(served: Served) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        serve(Device(), served.socket)

    assert served.clients == 0
    with Client(served.socket) as client:
        assert client.info()


def test_qemu_is_told_where_it_is(served: Served) -> None:
    assert served.qemu_properties == {
        "driver": "vfio-user-pci",
        "socket": {"type": "unix", "path": str(served.socket)},
    }


def test_what_a_killed_server_left_is_removed_with_the_other_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code = (
        "import os\n"
        "from harness.device.device import Device\n"
        "from harness.device.server import serve\n"
        "print(serve(Device()).socket, flush=True); os.kill(os.getpid(), 9)"
    )
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    left = Path(said.stdout.strip())
    assert left.is_socket() and left.parent.parent == tmp_path

    with serve(Device()) as served:
        assert list(tmp_path.iterdir()) == [served.socket.parent]
    assert not list(tmp_path.iterdir())
