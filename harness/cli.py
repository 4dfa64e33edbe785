"""The ``trapline`` command: thin typer commands over `harness.commands`.

Each command imports what it needs when it runs, so that ``trapline --help`` and a second
start stay fast.
"""

from __future__ import annotations

import sys

import typer

from harness.errors import ConfigError, HarnessError, MissingPackage

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MISSING_PACKAGES = 3

app = typer.Typer(
    name="trapline",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Prove what an assigned PCI or AP device may touch: mapped, trapped, isolated, working.",
)


def main() -> None:
    """Run the command line; a `HarnessError` becomes a message and an exit status."""
    try:
        app()
    except HarnessError as error:
        print(f"trapline: {error}", file=sys.stderr)
        if isinstance(error, ConfigError):
            sys.exit(EXIT_USAGE)
        sys.exit(EXIT_MISSING_PACKAGES if isinstance(error, MissingPackage) else EXIT_FAILED)
    except KeyboardInterrupt:
        print("trapline: interrupted", file=sys.stderr)
        sys.exit(130)
