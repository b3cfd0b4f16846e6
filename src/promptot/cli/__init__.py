"""The `promptot` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command: exit code 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    from promptot.cli.app import app
    from promptot.cli.console import errors, show_error
    from promptot.errors import PromptotError

    try:
        app()
    except PromptotError as error:
        show_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("\nInterrupted. A run goes on from its last epoch with --resume.")
        sys.exit(130)
