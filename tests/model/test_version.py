"""Versions are read from what programs say and compared by release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.version import KernelVersion, QemuVersion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)", (10, 0, 2)),
        ("QEMU emulator version 9.2.50 (v9.2.0-1234-gdeadbeef)", (9, 2, 50)),
        ("2.11", (2, 11, 0)),
        ("v10.0.0-rc1", (9, 2, 91)),
        ("2.12.0(Debian 1:2.12+dfsg-3)", (2, 12, 0)),
    ],
)
def test_qemu_versions_are_read(text: str, expected: tuple[int, int, int]) -> None:
    version = QemuVersion.parse(text)

    assert (version.major, version.minor, version.micro) == expected
    assert version.text == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.12.48+deb13-amd64", (6, 12, 48, None)),
        ("7.0-rc3", (7, 0, 0, 3)),
        ("7.0~rc3-amd64", (7, 0, 0, 3)),
        ("Linux version 6.1.0-37-amd64 (debian)", (6, 1, 0, None)),
        ("4.15.0-213-generic", (4, 15, 0, None)),
        ("5.10", (5, 10, 0, None)),
    ],
)
def test_kernel_versions_are_read(text: str, expected: tuple[int, int, int, int | None]) -> None:
    version = KernelVersion.parse(text)

    candidate = None if version.candidate == 1000 else version.candidate
    assert (version.major, version.minor, version.patch, candidate) == expected


@pytest.mark.parametrize("text", ["", "ten", "10", "x10.0", "QEMU"])
def test_text_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a QEMU version"):
        QemuVersion.parse(text)
    with pytest.raises(ValueError, match="not a Linux version"):
        KernelVersion.parse(text)


def test_versions_are_ordered_by_number_not_by_text() -> None:
    assert QemuVersion.parse("2.9.1") < QemuVersion.parse("2.12") < QemuVersion.parse("10.0")
    assert KernelVersion.parse("4.9") < KernelVersion.parse("4.16") < KernelVersion.parse("6.1.9")
    assert KernelVersion.parse("7.0-rc3") < KernelVersion.parse("7.0") < KernelVersion(7, 1)
    assert QemuVersion.parse("10.0.2 (Debian)") == QemuVersion(10, 0, 2)


def test_a_candidate_has_the_changes_of_its_release() -> None:
    assert KernelVersion.parse("4.16-rc1").has(4, 16)
    assert not KernelVersion.parse("4.15.18").has(4, 16)
    assert QemuVersion.parse("2.12.0-rc0").has(2, 12)
    assert QemuVersion.parse("2.11.50").has(2, 12)
    assert not QemuVersion.parse("2.11.2").has(2, 12)
    assert QemuVersion.parse("4.2.50").has(5, 0)
    assert not QemuVersion.parse("4.2.50").has(5, 1)
    assert QemuVersion.parse("2.12.50").has(3, 0)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_printed_version_reads_back(major: int, minor: int, patch: int) -> None:
    qemu, kernel = QemuVersion(major, minor, patch), KernelVersion(major, minor, patch)

    assert QemuVersion.parse(str(qemu)) == qemu
    assert KernelVersion.parse(str(kernel)) == kernel
