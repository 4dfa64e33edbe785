"""The vfio-user protocol on the wire: numbers, layouts, and the checks every message passes.

Pure: bytes in, values out; no sockets. All fields are in the byte order of the machine, which
is little-endian wherever this runs.

Source: QEMU ``docs/interop/vfio-user.rst`` (protocol 0.1) and ``linux/vfio.h``, whose structures
most payloads are; ``libvfio-user`` where the text leaves a question open.
"""

from __future__ import annotations

import enum
import errno
import json
import os
from dataclasses import dataclass
from struct import Struct
from typing import Final

from harness.errors import HarnessError


class Command(enum.IntEnum):
    """What a message asks for; 11 and 12 go from server to client, the others to the server."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_REGION_IO_FDS = 6
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    RESET = 13
    DIRTY_PAGES = 14
    """Of old versions of the protocol; answered with an error."""
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


MAJOR: Final = 0
MINOR: Final = 1

# Header: message id, command, size with header, flags, error number.
HEADER: Final = Struct("<HHIII")
TYPE_MASK: Final = 0xF
TYPE_COMMAND: Final = 0
TYPE_REPLY: Final = 1
FLAG_NO_REPLY: Final = 0x10
FLAG_ERROR: Final = 0x20

VERSION: Final = Struct("<HH")
DMA_MAP: Final = Struct("<IIQQQ")  # argsz, flags, offset, address, size
DMA_UNMAP: Final = Struct("<IIQQ")  # argsz, flags, address, size
DEVICE_INFO: Final = Struct("<IIII")  # argsz, flags, regions, interrupt types
REGION_INFO: Final = Struct("<IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
CAPABILITY: Final = Struct("<HHI")  # id, version, next
SPARSE: Final = Struct("<II")  # areas, reserved; after the capability's header
AREA: Final = Struct("<QQ")  # offset, size
IO_FDS: Final = Struct("<IIII")  # argsz, flags, index, count
IO_FD: Final = Struct("<QQIIIIQ")  # offset, size, fd index, type, flags, padding, datamatch
IRQ_INFO: Final = Struct("<IIII")  # argsz, flags, index, count
IRQ_SET: Final = Struct("<IIIII")  # argsz, flags, index, start, count
ACCESS: Final = Struct("<QII")  # offset, region, count
DMA_ACCESS: Final = Struct("<QQ")  # address, count
MULTI: Final = Struct("<Q")  # writes
MULTI_WRITE: Final = Struct("<QII8s")  # offset, region, count, data

DMA_READABLE: Final = 1
DMA_WRITABLE: Final = 2
UNMAP_DIRTY_BITMAP: Final = 1
UNMAP_ALL: Final = 2

DEVICE_RESET: Final = 1
DEVICE_PCI: Final = 2

REGION_READ: Final = 1
REGION_WRITE: Final = 2
REGION_MMAP: Final = 4
REGION_CAPS: Final = 8
CAP_SPARSE_MMAP: Final = 1
CAP_MSIX_MAPPABLE: Final = 3

IRQ_EVENTFD: Final = 1
IRQ_MASKABLE: Final = 2
IRQ_AUTOMASKED: Final = 4
IRQ_NORESIZE: Final = 8

SET_NONE: Final = 1
SET_BOOL: Final = 2
SET_EVENTFD: Final = 4
SET_DATA: Final = SET_NONE | SET_BOOL | SET_EVENTFD
SET_MASK: Final = 8
SET_UNMASK: Final = 16
SET_TRIGGER: Final = 32
SET_ACTION: Final = SET_MASK | SET_UNMASK | SET_TRIGGER

IO_FD_IOEVENTFD: Final = 0
IOEVENTFD_DATAMATCH: Final = 1
IOEVENTFD_PIO: Final = 2

ROM_REGION: Final = 6
CONFIG_REGION: Final = 7
VGA_REGION: Final = 8
REGIONS: Final = 9
"""VFIO_PCI_NUM_REGIONS: six BARs, ROM, configuration space, VGA."""

INTX: Final = 0
MSI: Final = 1
MSIX: Final = 2
ERR: Final = 3
REQ: Final = 4
IRQS: Final = 5
"""VFIO_PCI_NUM_IRQS."""

MAX_TRANSFER: Final = 1 << 20
"""Bytes of data in one message, ours and the default of a peer that does not say."""
MAX_MESSAGE: Final = MAX_TRANSFER + 4096
"""A message longer than this is no message."""
MAX_FDS: Final = 16
"""Descriptors that we take in one message; QEMU finds more "malformed"."""
MAX_DMA_MAPS: Final = 65535
PAGE_SIZE: Final = 4096


class Refused(HarnessError):
    """A message is answered with an error.

    :param number: what the reply carries, an ``errno`` value.
    :param fatal: the stream cannot be trusted after it; the connection is closed.
    """

    def __init__(self, summary: str, number: int = errno.EINVAL, *, fatal: bool = False) -> None:
        super().__init__(f"{summary} ({errno.errorcode.get(number, number)})")
        self.number = number
        self.fatal = fatal


class PeerGone(HarnessError):
    """The other side closed the connection."""


class RequestFailed(HarnessError):
    """The other side answered our message with an error.

    :param command: what was asked.
    :param number: its ``errno`` value, 0 if it gave none.
    """

    def __init__(self, command: int, number: int) -> None:
        super().__init__(
            f"{name_of(command)}: the peer answered with an error",
            seen=f"{errno.errorcode.get(number, number)}: {os.strerror(number)}",
        )
        self.command = command
        self.number = number


def name_of(command: int) -> str:
    """Return the name of a command, or its number."""
    try:
        return Command(command).name
    except ValueError:
        return f"command {command}"


def fields(layout: Struct, payload: bytes, name: str) -> tuple[int, ...]:
    """Return the leading fields of *payload*.

    :raise Refused: it is too short for them.
    """
    if len(payload) < layout.size:
        raise Refused(f"{name}: payload of {len(payload)} bytes, {layout.size} are needed")
    return layout.unpack_from(payload)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer can take, from its VERSION message."""

    max_fds: int = 1
    max_transfer: int = MAX_TRANSFER
    write_multiple: bool = False


def version_payload(
    *,
    major: int = MAJOR,
    minor: int = MINOR,
    max_fds: int = MAX_FDS,
    write_multiple: bool = True,
) -> bytes:
    """Return the payload of our VERSION message."""
    capabilities = {
        "max_msg_fds": max_fds,
        "max_data_xfer_size": MAX_TRANSFER,
        "max_dma_maps": MAX_DMA_MAPS,
        "pgsizes": PAGE_SIZE,
        "write_multiple": write_multiple,
    }
    text = json.dumps({"capabilities": capabilities}).encode() + b"\0"
    return VERSION.pack(major, minor) + text


def read_version(payload: bytes) -> tuple[int, int, Limits]:
    """Return major, minor and limits of a peer's VERSION payload.

    :raise Refused: it is no such payload; always fatal, there is no session without it.
    """
    if len(payload) < VERSION.size:
        raise Refused(f"VERSION: payload of {len(payload)} bytes, 4 are needed", fatal=True)
    major, minor = VERSION.unpack_from(payload)
    text = payload[VERSION.size :]
    if not text:
        return major, minor, Limits()
    if text[-1] != 0:
        raise Refused("VERSION: the version data does not end in NUL", fatal=True)
    try:
        data = json.loads(text[: text.index(0)].decode())
        capabilities = data.get("capabilities", {})
        limits = Limits(
            max_fds=_number(capabilities.get("max_msg_fds", 1)),
            max_transfer=_number(capabilities.get("max_data_xfer_size", MAX_TRANSFER)),
            write_multiple=capabilities.get("write_multiple") is True,
        )
    except (ValueError, AttributeError, RecursionError) as error:
        raise Refused(f"VERSION: the version data cannot be read: {error}", fatal=True) from error
    return major, minor, limits


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"not a size: {value!r}")
    return value
