"""Where two runs of bytes differ."""

from hypothesis import given
from hypothesis import strategies as st

from harness.model.difference import first_difference


@given(data=st.binary())
def test_equal_bytes_have_no_difference(data: bytes) -> None:
    assert first_difference(data, bytes(data)) is None


@given(data=st.binary(min_size=1), where=st.data())
def test_one_changed_byte_is_found(data: bytes, where: st.DataObject) -> None:
    offset = where.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[offset] ^= 0xFF

    found = first_difference(bytes(changed), data)

    assert found is not None
    assert (found.offset, found.seen, found.wanted, found.count) == (
        offset,
        changed[offset],
        data[offset],
        1,
    )


@given(data=st.binary(), more=st.binary(min_size=1))
def test_what_is_missing_differs(data: bytes, more: bytes) -> None:
    short, long = first_difference(data, data + more), first_difference(data + more, data)

    assert short is not None and long is not None
    assert (short.offset, short.seen, short.count) == (len(data), None, len(more))
    assert (long.offset, long.wanted, long.count) == (len(data), None, len(more))


def test_it_reads_as_one_line() -> None:
    assert str(first_difference(b"ab", b"aXcd")) == "byte 0x1 is 0x62, not 0x58; 3 bytes differ"
    assert str(first_difference(b"a", b"ab")) == "byte 0x1 is nothing, not 0x62; 1 bytes differ"
