"""Where the suites, the tests and the results are, in a checkout and when installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import harness


@dataclass(frozen=True, slots=True)
class Places:
    """The directories the commands work with, absolute."""

    root: Path
    """What node ids are relative to: the checkout, or ``site-packages``."""
    results: Path
    """Where runs go unless told otherwise."""
    is_checkout: bool

    @classmethod
    def find(cls) -> Places:
        """Return them for the `harness` that was imported; results go to the checkout or here."""
        root = Path(harness.__file__).resolve().parent.parent
        is_checkout = (root / "pyproject.toml").is_file()
        return cls(root, (root if is_checkout else Path.cwd()) / "results", is_checkout)

    @property
    def suites(self) -> Path:
        """The suites: next to `harness` in a checkout and in ``site-packages``."""
        return self.root / "suites"

    @property
    def tests(self) -> Path | None:
        """The harness's own tests; they are not installed."""
        return self.root / "tests" if self.is_checkout else None

    def pytest_options(self) -> list[str]:
        """Return what pytest must be told because no ``pyproject.toml`` of ours says it.

        Without ``--config-file`` pytest would take the settings of whatever project has the
        virtual environment in it.
        """
        if self.is_checkout:
            return []
        return [
            "--config-file=/dev/null",
            f"--rootdir={self.root}",
            "--import-mode=importlib",
            "--strict-markers",
            "--override-ini=timeout=600",
            "-p",
            "no:cacheprovider",
        ]
