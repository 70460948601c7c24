"""The command ``anomalib-synth``: finds the command that is asked for, reads its arguments, runs it.

Nothing heavy is imported before the arguments are known to be right, so help and errors come at once.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anomalib_synth.commands.suggestions import suggest_names
from anomalib_synth.installation import explain_misfit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = "anomalib-synth"
_GOES_ON = "What was done is kept; the same command goes on from there."
_NOTHING = "Nothing was written."


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        stopped: What is true when it is stopped by Ctrl-C.
        function: Name of its function where that is not the command's; its module always is.
    """

    stopped: str
    function: str = ""


COMMANDS = {
    "build": Command("Finished steps are kept; the same command goes on from there."),
    "preview": Command(_NOTHING),
    "families": Command(_NOTHING),
    "suggest": Command(_NOTHING),
    "convert": Command("Copies written so far are whole; the same command goes on from there."),
    "fit": Command(_GOES_ON),
    "generate": Command("What was drawn is kept; the same command goes on from there."),
    "filter": Command("The store is as it was.", "filter_store"),
    "review": Command("Every decision is kept."),
    "check": Command("The store is as it was, but for rows that were repaired before."),
    "export": Command("The export is not finished; the same command goes on from there."),
    "calibrate": Command(_NOTHING),
    "predict": Command("Every verdict so far is written; the same command goes on from there."),
    "learn": Command("The detector is as it was; what was collected is kept."),
    "look_alikes": Command("What was drawn is kept; the same command goes on from there."),
    "compare": Command("Finished runs are kept; the same command goes on from there."),
    "configs": Command(_NOTHING),
    "doctor": Command(_NOTHING),
}


def load(name: str) -> Callable[..., None]:
    """Return the function of a command."""
    module = importlib.import_module(f"anomalib_synth.commands.{name}")
    return getattr(module, COMMANDS[name].function or name)


def main(args: list[str] | None = None) -> None:
    """Run a command.

    Args:
        args: Its name and arguments; those of the process unless given.

    Raises:
        SystemExit: With a message and status 1 for bad input, 2 for arguments that cannot be read, 130 for Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no command
    given = sys.argv[1:] if args is None else args
    name = given[0].replace("-", "_") if given and not given[0].startswith("-") else ""
    if not name:
        print(_greet(given))
        return
    if name not in COMMANDS:
        _refuse(f"there is no command {given[0]!r}.{suggest_names(name, COMMANDS)} `{PROGRAM} --help` lists them.")
    warnings.filterwarnings("ignore", category=FutureWarning, module="timm|anomalib")  # one says what the other imports
    from anomalib_synth.commands.arguments import parse_arguments
    from anomalib_synth.commands.limits import check_numbers
    from anomalib_synth.commands.preconditions import check_images_are_there

    try:
        function = load(name)
        arguments = parse_arguments(function, name, given[1:])
        check_numbers(arguments)
        check_images_are_there(arguments)
        function(**arguments)
    except (ValueError, OSError, ImportError) as error:  # bad input, a file or weights that are not there, an extra
        msg = f"{PROGRAM}: {_on_one_line(error)}"
        raise SystemExit(msg) from error
    except (MemoryError, RuntimeError) as error:
        if misfit := explain_misfit(error):
            msg = f"{PROGRAM}: {misfit}"
            raise SystemExit(msg) from error
        if str(error).startswith("Symlink loop"):  # so says pathlib
            msg = f"{PROGRAM}: {_on_one_line(error)}, which leads to itself. Take that link away, or name another path."
            raise SystemExit(msg) from error
        if not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        msg = (
            f"{PROGRAM}: there is not enough memory ({reason}). Take fewer or smaller images, or end other programs. "
            f"{COMMANDS[name].stopped}"
        )
        raise SystemExit(msg) from error
    except KeyboardInterrupt as error:
        print(f"{PROGRAM}: stopped. {COMMANDS[name].stopped}", file=sys.stderr)
        raise SystemExit(130) from error
    if args is None and name == "review":
        sys.stdout.flush()
        os._exit(0)  # Ctrl-C ends it at once: decisions are on the disk, and taking torch apart takes seconds


def _on_one_line(error: Exception) -> str:
    """Return the message of an error, which may quote a library's many lines, or a name with control characters."""
    from anomalib_synth.progress import printable

    lines = [line.strip() for line in str(error).splitlines()]
    return printable(" ".join(filter(None, lines)) or type(error).__name__)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, or torch on the CPU or another device, had no memory left."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _greet(given: Sequence[str]) -> str:
    """Return what is printed where no command is named."""
    from anomalib_synth._version import __version__

    if given and given[0] in {"--version", "-V"}:
        return f"{PROGRAM} {__version__}"
    if given and given[0] not in {"--help", "-h"}:
        _refuse(f"a command must come first, got {given[0]!r}. `{PROGRAM} --help` lists them.")
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {(load(name).__doc__ or '').splitlines()[0]}" for name in COMMANDS]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [--option value ...]",
            "",
            *lines,
            "",
            f"`{PROGRAM} COMMAND --help` lists the options of a command, `{PROGRAM} --version` names the version.",
        ]
    )


def _refuse(message: str) -> None:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
