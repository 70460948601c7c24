"""The ranges of the commands' numbers, checked before anything heavy is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Limits:
    """The range of a number.

    Args:
        least: Smallest value.
        most: Largest value.
        without_least: Whether the smallest value itself is left out.
        without_most: Whether the largest value itself is left out.
        remedy: What to do instead.
    """

    least: float
    most: float = math.inf
    without_least: bool = False
    without_most: bool = False
    remedy: str = ""

    def __contains__(self, value: float) -> bool:
        """Return whether a value lies in the range."""
        above = value > self.least if self.without_least else value >= self.least
        return above and (value < self.most if self.without_most else value <= self.most)

    def __str__(self) -> str:
        """Return the range as the help text has it."""
        if self.most == math.inf:
            return f"{'>' if self.without_least else '>='} {self.least:g}"
        return (
            f"in {'(' if self.without_least else '['}{self.least:g}, {self.most:g}{')' if self.without_most else ']'}"
        )


_COUNT = Limits(1)
LIMITS = {
    "false_alarm_rate": Limits(0, 1, without_least=True, without_most=True, remedy="0.05 is one good image in twenty."),
    "min_recall": Limits(0, 1, remedy="0.5 asks for half of the strongest defects."),
    "strengths": Limits(0, 1, without_least=True, remedy="1 is the strongest."),
    "val_share": Limits(0, 1, without_most=True, remedy="0.2 holds out one image in five."),
    "minutes": Limits(0, without_least=True, remedy="10 suit a few hundred images."),
    "interval": Limits(0, without_least=True),
    "until_idle": Limits(0),
    "seed": Limits(0),
    "crop": Limits(16),
    **dict.fromkeys(
        (
            "num_samples", "candidates", "per_cell", "per_family", "batch_size", "workers", "steps", "max_normals",
            "num_static", "min_area",
        ),
        _COUNT,
    ),
}  # fmt: skip


def check_numbers(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers outside their range.

    Args:
        arguments: Of a command, by name; None and what is no number is left to the command.

    Raises:
        ValueError: Naming the argument, the range, the value and the remedy.
    """
    for name, value in arguments.items():
        limits = LIMITS.get(name)
        for number in value if isinstance(value, list | tuple) else [value]:
            if limits is not None and isinstance(number, int | float) and number not in limits:
                each = "hold numbers" if isinstance(value, list | tuple) else "be"
                msg = f"`{name}` must {each} {limits}, got {number}. {limits.remedy}"
                raise ValueError(msg.rstrip())
