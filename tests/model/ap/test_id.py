"""Names of AP queues, and numbers as the kernel reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.id import Apqn, kstrtoul, simple_strtoul

ids = st.integers(0, 255)


@pytest.mark.rule("AP-01")
@given(ids, ids)
def test_a_queue_is_named_by_two_digits_of_its_adapter_and_four_of_its_domain(
    adapter: int, domain: int
) -> None:
    name = str(Apqn(adapter, domain))

    assert name == f"{adapter:02x}.{domain:04x}"
    assert Apqn.parse(name) == Apqn(adapter, domain) == Apqn.of(Apqn(adapter, domain).value)


@pytest.mark.rule("AP-01")
@pytest.mark.parametrize(
    "text", ["", "5.4", "05.4", "05.0004\n", "0A.001b", "05.0100", "105.0004"]
)
def test_other_texts_name_no_queue(text: str) -> None:
    with pytest.raises(ValueError, match="AP queue"):
        Apqn.parse(text)


def test_a_queue_is_one_number_for_the_instructions() -> None:
    assert Apqn.parse("05.00ab").value == 0x05AB


@pytest.mark.rule("AP-16")
@pytest.mark.parametrize(
    ("text", "value"),
    [("27", 27), ("0x1b", 27), ("0X1B", 27), ("033", 27), ("04", 4), ("+4", 4), ("4\n", 4),
     ("0", 0), ("18446744073709551615", 2**64 - 1)],
)  # fmt: skip
def test_ids_are_decimal_hexadecimal_or_octal(text: str, value: int) -> None:
    assert kstrtoul(text) == value


@pytest.mark.rule("AP-16")
@pytest.mark.parametrize(
    ("text", "errno"),
    [("1b", Errno.EINVAL), ("0x", Errno.EINVAL), ("0xg", Errno.EINVAL), ("-1", Errno.EINVAL),
     ("08", Errno.EINVAL), ("", Errno.EINVAL), ("\n", Errno.EINVAL), (" 4", Errno.EINVAL),
     ("4 ", Errno.EINVAL), ("4\n\n", Errno.EINVAL), ("++4", Errno.EINVAL),
     ("18446744073709551616", Errno.ERANGE), ("0x10000000000000000zz", Errno.ERANGE)],
)  # fmt: skip
def test_what_is_no_number_or_too_large_is_refused(text: str, errno: Errno) -> None:
    with pytest.raises(KernelError) as refused:
        kstrtoul(text)

    assert refused.value.errno is errno


@given(st.integers(0, 2**64 - 1), st.sampled_from(["", "+"]), st.sampled_from(["", "\n"]))
def test_every_number_is_read_in_every_base(number: int, before: str, after: str) -> None:
    for text in (str(number), hex(number), f"0{number:o}"):
        assert kstrtoul(before + text + after) == number


@given(st.integers(0, 2**70), st.text("g-,+\n ", max_size=3))
def test_the_simple_form_wraps_and_stops_where_the_digits_do(number: int, rest: str) -> None:
    assert simple_strtoul(f"{number:#x}{rest}") == (number % 2**64, len(f"{number:#x}"))


def test_the_simple_form_takes_no_sign() -> None:
    assert simple_strtoul("-5") == simple_strtoul("+5") == (0, 0)
    assert simple_strtoul("0x,") == (0, 1)


@given(st.sampled_from(Errno))
def test_an_error_is_found_by_its_number(errno: Errno) -> None:
    assert Errno.of(-errno.number) is errno
    assert errno.message


def test_an_unknown_error_number_is_told() -> None:
    with pytest.raises(ValueError, match="errno 4095"):
        Errno.of(4095)
