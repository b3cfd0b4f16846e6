"""The `promptot` command."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit.

    Exit codes: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C, 143 when terminated.

    Args:
        arguments: by default those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal can't show is no error
            stream.reconfigure(errors="backslashreplace")

    from promptot.cli.app import app
    from promptot.cli.console import errors, show_error, warnings_shown
    from promptot.errors import PromptotError

    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings_shown():
            app(list(sys.argv[1:] if arguments is None else arguments), prog_name="promptot")
    except PromptotError as error:
        show_error(error)
        sys.exit(1)
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = None  # or Python would flush it once more
        sys.exit(1)
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        show_error(PromptotError(f"The system refused: {error.strerror or error}{where}."))
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which may not be imported
            raise
        from promptot.devices import out_of_memory

        fix = "Use --precision bf16 or --device cpu, or wait until other processes have left it."
        show_error(out_of_memory(error, "", fix))
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        sys.exit(INTERRUPTED)
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            errors.print("Interrupted." if stop.code == INTERRUPTED else "Terminated.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)  # unlike the signal itself, this cleans up on its way
