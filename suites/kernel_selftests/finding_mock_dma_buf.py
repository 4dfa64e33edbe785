"""The mock of iommufd answers 0 where it should tell the descriptor of a dma-buf.

See docs/findings/mock-dma-buf.md. Not collected unless it is named.
"""

import pytest

from suites.kernel_selftests.conftest import Program, check_report
from suites.kernel_selftests.test_iommu import DMA_BUF, PROGRAM, with_mock

__all__ = ["with_mock"]

pytestmark = pytest.mark.usefixtures("with_iommufd", "with_mock")


def test_a_dma_buf_is_mapped_until_it_is_revoked(program: Program) -> None:
    """What Linux itself asks of dma-bufs: 7.3-rc7 fails."""
    check_report(program(PROGRAM).run(only=DMA_BUF))
