"""What a run says while it works and when it is done."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.progress import Task

    from anomalib_synth.store import Record

_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_SHOWN = 8


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Show the rate."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s" if speed >= 0.1 else f"{speed * 60:.1f}/min")


def make_progress() -> Progress:
    """Return a progress display with rate and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )


def summarise(records: Iterable[Record], quarantined: dict[str, str]) -> str:
    """Say how many samples passed their checks, why the others did not, and which inputs could not be read."""
    count, accepted, seconds = 0, 0, 0.0
    reasons: Counter[str] = Counter()
    for record in records:
        count += 1
        accepted += record.accepted
        seconds += record.seconds
        if not record.accepted:
            reasons[_NUMBER.sub("#", record.reason)] += 1
    share = f" ({accepted / count:.1%})" if count else ""
    each = f", {seconds / count:.3f} s each" if count else ""
    lines = [f"{accepted} of {count} samples passed the checks{share}{each}."]
    lines += [f"  rejected, {number} x: {reason}" for reason, number in reasons.most_common(_SHOWN)]
    if len(reasons) > _SHOWN:
        lines.append(f"  and {len(reasons) - _SHOWN} more reasons, see the manifest")
    if quarantined:
        lines.append(f"{len(quarantined)} inputs were quarantined:")
        lines += [f"  {name}: {reason}" for name, reason in list(quarantined.items())[:_SHOWN]]
        if len(quarantined) > _SHOWN:
            lines.append(f"  and {len(quarantined) - _SHOWN} more, see quarantine.jsonl")
    return "\n".join(lines)


def as_duration(seconds: float) -> str:
    """Write a time for people.

    Example:
        >>> as_duration(42), as_duration(150), as_duration(9000)
        ('42 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def as_size(count: float) -> str:
    """Write a number of bytes for people.

    Example:
        >>> as_size(512), as_size(3 * 2**20)
        ('512 B', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
