"""The changes in a detector's scores by learning, and the defects that it lost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.statistics import Proportion
from anomalib_synth.progress import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.learning.examples import Example
    from anomalib_synth.learning.scoring import Score


@dataclass(frozen=True, kw_only=True)
class DetectorScores:
    """The scores of a detector at one moment.

    Args:
        threshold: Threshold of raw image scores; an example above it alarms.
        scores: The scores of the examples that are compared, in their order.
    """

    threshold: float
    scores: Sequence[Score]

    def alarms(self) -> list[bool]:
        """Return which examples alarm."""
        return [score.image > self.threshold for score in self.scores]

    def margin(self, place: int) -> float:
        """Return how far the score of an example is above the threshold; negative below it."""
        return self.scores[place].image - self.threshold


@dataclass(frozen=True, kw_only=True)
class LearningChanges:
    """The scores of the same examples before and after learning.

    Args:
        examples: The examples.
        before: Scores and threshold before.
        after: Scores and threshold after.
        new: Digests of the examples that were learned now.
        rate: Target false-alarm rate of the new threshold, in (0, 1).
    """

    examples: Sequence[Example]
    before: DetectorScores
    after: DetectorScores
    new: frozenset[bytes]
    rate: float

    def of_new(self) -> list[tuple[Example, float, float]]:
        """Return each image that was learned now, with its margins before and after."""
        return [
            (example, self.before.margin(place), self.after.margin(place))
            for place, example in enumerate(self.examples)
            if example.key in self.new
        ]

    def false_alarms(self, measured: frozenset[bytes]) -> tuple[Proportion, Proportion]:
        """Return the share of held-out good images that alarm, before and after.

        Args:
            measured: Digests of the held-out good images that set no threshold.
        """
        places = [place for place, example in enumerate(self.examples) if example.key in measured]
        before, after = (
            Proportion(sum(reading.alarms()[place] for place in places), len(places))
            for reading in (self.before, self.after)
        )
        return before, after

    def families(self) -> dict[str, tuple[Proportion, Proportion]]:
        """Return the share found of each family of drawn defects on held-out images, before and after."""
        grouped: dict[str, list[int]] = defaultdict(list)
        for place, example in enumerate(self.examples):
            if example.role == "probe":
                grouped[example.name].append(place)
        found = [reading.alarms() for reading in (self.before, self.after)]
        return {
            family: (
                Proportion(sum(found[0][place] for place in places), len(places)),
                Proportion(sum(found[1][place] for place in places), len(places)),
            )
            for family, places in sorted(grouped.items())
        }

    def lost(self) -> list[Example]:
        """Return the defects that were found before and are not now."""
        defects = {"probe", "defect", "trained_defect"}
        pairs = zip(self.examples, self.before.alarms(), self.after.alarms(), strict=True)
        return [example for example, before, after in pairs if example.role in defects and before and not after]

    def again(self) -> list[Example]:
        """Return the learned false alarms that did not alarm before this training and do now."""
        pairs = zip(self.examples, self.before.alarms(), self.after.alarms(), strict=True)
        return [example for example, before, after in pairs if example.role == "false_alarm" and after and not before]

    def to_dict(self, measured: frozenset[bytes]) -> dict[str, Any]:
        """Return plain data."""
        alarms = self.false_alarms(measured)
        return {
            "threshold": {"before": self.before.threshold, "after": self.after.threshold},
            "learned": [
                {
                    "image": example.name,
                    "role": example.role,
                    "key": example.key.hex(),
                    "before": before,
                    "after": after,
                }
                for example, before, after in self.of_new()
            ],
            "false_alarms": {"before": alarms[0].to_dict(), "after": alarms[1].to_dict()},
            "families": {
                family: {"before": before.to_dict(), "after": after.to_dict()}
                for family, (before, after) in self.families().items()
            },
            "lost": [example.name for example in self.lost()],
        }


def print_changes(changes: LearningChanges, measured: frozenset[bytes]) -> None:
    """Print what changed: the images, false alarms, recall by family, and what was lost."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="What it learned", title_justify="left", box=SIMPLE_HEAD)
    for column in ("image", "as", "before", "after"):
        table.add_column(column, overflow="fold")
    for example, *margins in changes.of_new():
        table.add_row(_name(example), "defect" if example.role == "defect" else "good", *map(_describe, margins))
    console.print(table)
    before, after = changes.false_alarms(measured)
    console.print(
        f"False alarms on {after.of} held-out good images: {_share(before)} before, {_share(after)} after; the new "
        f"threshold is set on others, for at most {changes.rate:.1%}."
    )
    if before.low > changes.rate:
        console.print(
            "Before, it alarmed for more good images than that: its threshold was too low, or not calibrated. What is "
            "lost below may be the price of fewer false alarms; `false_alarm_rate` sets how many there may be."
        )
    table = Table(title="Recall of drawn defects", title_justify="left", box=SIMPLE_HEAD)
    for column in ("family", "of", "before", "after", ""):
        table.add_column(column, justify="left" if column == "family" else "right")
    for family, (old, new) in changes.families().items():
        sign = "" if new.count == old.count else f"{new.count - old.count:+d}"
        table.add_row(family, str(new.of), str(old.count), str(new.count), sign)
    sums = [sum(pair[which].count for pair in changes.families().values()) for which in (0, 1)]
    total = sum(pair[1].of for pair in changes.families().values())
    table.add_row("all", str(total), str(sums[0]), str(sums[1]), f"{sums[1] - sums[0]:+d}", style="bold")
    console.print(table)
    _print_lost(console, changes)


def _name(example: Example) -> str:
    """Return the name of an example's file as rich prints it as it is."""
    from rich.markup import escape

    return escape(printable(example.name))


def _print_lost(console: Any, changes: LearningChanges) -> None:
    lost = changes.lost()
    real = [_name(example) for example in lost if example.role != "probe"]
    drawn = [example for example in lost if example.role == "probe"]
    if real:
        console.print(f"[bold]LOST[/bold] {len(real)} real defects it had found: {', '.join(real)}", soft_wrap=True)
    if drawn:
        console.print(
            f"[bold]LOST[/bold] {len(drawn)} drawn defects that it had found are missed now, by family above."
        )
    if again := changes.again():
        names = ", ".join(map(_name, again))
        console.print(f"[bold]AGAIN[/bold] {len(again)} good images alarm that had not: {names}", soft_wrap=True)
    if not lost:
        console.print("Nothing that it had found is lost.")


def _describe(margin: float) -> str:
    return f"{'alarm' if margin > 0 else 'no alarm'} ({margin:+.2f})"


def _share(share: Proportion) -> str:
    return f"{share.count} ({share.value:.1%}, 95 % interval {share.low:.1%} to {share.high:.1%})"
