"""Packets of the remote serial protocol: bytes in, packets out. Pure."""

from __future__ import annotations

from harness.errors import ParseError

LARGEST = 1 << 20
"""Bytes of one packet that are believed; QEMU's end at 128 KiB."""
_ESCAPED = b"#$}*"


def encode_packet(content: bytes) -> bytes:
    """Return *content* as a packet: escaped, framed, with its checksum."""
    body = b"".join(
        b"}" + bytes([byte ^ 0x20]) if byte in _ESCAPED else bytes([byte]) for byte in content
    )
    return b"$%b#%02x" % (body, sum(body) & 0xFF)


def decode_body(body: bytes) -> bytes:
    """Undo escapes and runs: ``}`` and the byte xor 0x20, ``*`` and a count plus 29.

    :raise ParseError: a run of nothing, a count out of range, or an escape of nothing.
    """
    found = bytearray()
    rest = iter(body)
    for byte in rest:
        if byte == ord("}"):
            escaped = next(rest, None)
            if escaped is None:
                raise _broken("an escape of nothing", body)
            found.append(escaped ^ 0x20)
        elif byte == ord("*"):
            count = next(rest, 0) - 29
            if not found or not 3 <= count <= 97:
                raise _broken("a run that cannot be", body)
            found += found[-1:] * count
        else:
            found.append(byte)
    return bytes(found)


class PacketReader:
    """Takes bytes as they come and gives packets; acknowledgements and notifications go by."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the content of the next whole packet, None if there is none yet.

        :raise ParseError: the checksum is wrong, or what comes is no packet.
        """
        while self._buffer:
            lead = self._buffer[0]
            if lead in b"+-":
                del self._buffer[0]
                continue
            if lead not in b"$%":
                raise _broken("no packet", self._take(64))
            end = self._buffer.find(b"#", 1)
            if end < 0 or len(self._buffer) < end + 3:
                if len(self._buffer) > LARGEST:
                    raise _broken("a packet without end", self._take(64))
                return None
            packet = self._take(end + 3)
            body = packet[1:end]
            if packet[end + 1 :].lower() != b"%02x" % (sum(body) & 0xFF):
                raise _broken("a wrong checksum", packet)
            if lead == ord("$"):
                return decode_body(body)
        return None

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _broken(what: str, text: bytes) -> ParseError:
    return ParseError(what, text=repr(text[:200]), where="gdbstub")
