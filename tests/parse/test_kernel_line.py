"""What stands in front of a kernel message."""

from __future__ import annotations

import pytest

from harness.parse.kernel_line import KernelLine, read_kernel_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[    1.234567] hello", KernelLine("hello", 1.234567)),
        ("[    1.234567][    T1] hello\r\n", KernelLine("hello", 1.234567)),
        ("[12345.000001] [   C0] hello", KernelLine("hello", 12345.000001)),
        ("<4>[    0.000000] hello", KernelLine("hello", 0.0)),
        ("login: [    3.500000] hello", KernelLine("hello", 3.5)),
        ("\x1b[0;32m[    3.500000] hello\x1b[0m", KernelLine("hello", 3.5)),
        ("[Mon Jan  5 10:11:12 2026] hello", KernelLine("hello")),
        ("2026-01-05T10:11:12,123456+00:00 hello", KernelLine("hello")),
        ("Jan 05 10:11:12 box kernel: hello", KernelLine("hello")),
        ("<6>hello", KernelLine("hello")),
        ("[  OK  ] Started a unit", KernelLine("[  OK  ] Started a unit")),
        ("", KernelLine("")),
    ],
)
def test_prefix_is_taken_off(line: str, expected: KernelLine) -> None:
    assert read_kernel_line(line) == expected
