"""What commands say of the files of a folder that they leave out: the same words in each of them."""

from __future__ import annotations

import logging
import multiprocessing
import re
from functools import cache
from typing import TYPE_CHECKING

from anomalib_synth.progress import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMED = 5  # files of one reason that are named; the others are counted
_REASONS = 12
_NUMBER = re.compile(r"\d+(\.\d+)?")
_logger = logging.getLogger(__name__)


def describe_left_out(left_out: Mapping[str, str], argument: str) -> list[str]:
    """Return a line for each reason: which files of a folder were left out, how many, and why.

    Args:
        left_out: Reason by name.
        argument: What names the folder.

    Example:
        >>> describe_left_out({"a.gif": "not read", "b.gif": "not read"}, "normals")
        ['Left out a.gif and b.gif of `normals`: not read.']
    """
    alike: dict[str, list[str]] = {}
    for name, reason in left_out.items():  # reasons that differ in their numbers alone share a line
        alike.setdefault(_NUMBER.sub("#", reason), []).append(name)
    lines = []
    for names in list(alike.values())[:_REASONS]:
        others = "" if len({left_out[name] for name in names}) == 1 else " (the first; the others are alike)"
        lines.append(printable(f"Left out {_join(names)} of `{argument}`: {left_out[names[0]].rstrip('.')}{others}."))
    if more := sum(map(len, list(alike.values())[_REASONS:])):
        lines.append(f"Left out {_count(more)} of `{argument}` for other reasons.")
    return lines


def warn_of_left_out(left_out: Mapping[str, str], argument: str) -> None:
    """Log what a folder is left without, once: it is listed several times in a run, and by each of its workers."""
    if multiprocessing.parent_process() is None:
        for line in describe_left_out(left_out, argument):
            _warn_once(line)


def _join(names: list[str]) -> str:
    named, more = names[:_NAMED], len(names) - _NAMED
    if more > 0:
        return f"{', '.join(named)} and {_count(more)}"
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _count(more: int) -> str:
    return f"{more} more {'file' if more == 1 else 'files'}"


@cache
def _warn_once(line: str) -> None:
    _logger.warning(line)
