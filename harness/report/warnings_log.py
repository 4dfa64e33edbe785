"""``warnings.log`` of a run: what went another way than it should, without changing a verdict.

A saved state that was damaged and made again, a guest that had to be started anew, evidence that
could not be collected: whoever reads the verdicts must be able to know.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

FILE_NAME = "warnings.log"
_LOGGER = "harness"


class WarningsLog:
    """Writes them; a pytest plugin. All workers append to one file.

    :param worker: name of this worker; empty where tests run without one.
    """

    def __init__(self, directory: Path, *, worker: str) -> None:
        self._handler = logging.FileHandler(directory / FILE_NAME, encoding="utf-8", delay=True)
        self._handler.setLevel(logging.WARNING)
        # One line a warning: it is counted and shown by its line.
        self._handler.setFormatter(_OneLine(f"%(asctime)s {worker or 'main'} %(message)s"))
        logging.getLogger(_LOGGER).addHandler(self._handler)

    def pytest_unconfigure(self) -> None:
        """Write nothing more; callable twice."""
        logging.getLogger(_LOGGER).removeHandler(self._handler)
        self._handler.close()


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).splitlines()
        return " | ".join(line.strip() for line in text if line.strip())


def read_warnings(directory: Path) -> list[str]:
    """Return the warnings of a run, each once, with how often it came; times left out."""
    try:
        text = (directory / FILE_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    said = Counter(line.split(" ", 3)[-1] for line in text.splitlines())
    return [f"{line}{f' ({number} times)' if number > 1 else ''}" for line, number in said.items()]
