"""Attributes of the AP bus and of vfio_ap: text to model."""

from __future__ import annotations

import re

from harness.errors import ParseError
from harness.model.ap.errno import KernelError
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

_ADAPTER = re.compile(r"([0-9a-f]{2})\.")
_DOMAIN = re.compile(r"\.([0-9a-f]{4})")
_FULL_MASK = re.compile(r"0x[0-9a-f]{64}")


def read_mask(text: str) -> ApMask | None:
    """Read apmask, aqmask or a mask of QCI; None is ``not supported``.

    :raise ParseError: it is not a mask as the kernel shows it.
    """
    if text.strip() == "not supported":
        return None
    if _FULL_MASK.fullmatch(text.strip()) is None:
        raise ParseError("not a mask of 256 bits", text=text, where="mask")
    return ApMask(int(text, 16))


def read_matrix(text: str) -> ApMatrix:
    """Read ``matrix`` or ``guest_matrix``.

    :raise ParseError: a line is not a queue, or the queues are not a product.
    """
    lines = text.split()
    adapters = [match[1] for line in lines if (match := _ADAPTER.match(line))]
    domains = [match[1] for line in lines if (match := _DOMAIN.search(line))]
    try:
        matrix = ApMatrix.of(
            (int(adapter, 16) for adapter in adapters), (int(domain, 16) for domain in domains)
        )
    except ValueError as error:
        raise ParseError(f"not a matrix: {error}", text=text, where="matrix") from error
    if matrix.matrix_text().split() != lines:
        raise ParseError("not all queues of some adapters and domains", text=text, where="matrix")
    return matrix


def read_control_domains(text: str) -> ApMask:
    """Read ``control_domains``.

    :raise ParseError: a line is not four digits.
    """
    try:
        mask = ApMask.of(int(line, 16) for line in text.split())
    except ValueError as error:
        raise ParseError(f"not domains: {error}", text=text, where="control_domains") from error
    return mask


def read_ap_config(text: str) -> ApMatrix:
    """Read ``ap_config``.

    :raise ParseError: it is not three masks.
    """
    try:
        return ApMatrix.config(text)
    except KernelError as error:
        raise ParseError("not three masks", text=text, where="ap_config") from error
