"""What a run prints when it is done."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anomalib_synth.store import Record

_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_SHOWN = 8


def summarise(records: Iterable[Record]) -> str:
    """Return lines on how many samples passed their checks, and why others did not."""
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
    return "\n".join(lines)


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
