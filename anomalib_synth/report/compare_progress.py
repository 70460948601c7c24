"""Shows how far a comparison is, and how long the rest may take."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from anomalib_synth.progress import as_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from rich.progress import Task


def estimate_left(
    left: Sequence[str], seconds: Mapping[str, Sequence[float]], *, workers: int, spent: Sequence[float] = ()
) -> float | None:
    """Return how many seconds the remaining runs may take, None while no run is done.

    Each is expected to take the median of its arm's runs so far or, if there are none, of all runs.

    Args:
        left: Arms of the runs that are not done, including the current ones.
        seconds: Seconds of the runs that are done, by arm.
        workers: Runs at the same time.
        spent: Seconds that each current run has taken so far.

    Example:
        >>> estimate_left(["a", "a", "b"], {"a": [10.0, 12.0, 50.0]}, workers=2, spent=[6.0])
        15.0
    """
    known = [value for values in seconds.values() for value in values]
    if not known:
        return None
    typical = statistics.median(known)
    total = sum(statistics.median(seconds[arm]) if seconds.get(arm) else typical for arm in left)
    return max(0.0, total - sum(spent)) / max(1, min(workers, len(left)))


class _LeftColumn(ProgressColumn):
    """The time left, beside the bar over all runs."""

    def __init__(self, owner: ComparisonProgress) -> None:
        super().__init__()
        self._owner = owner

    def render(self, task: Task) -> Text:
        """Show it."""
        return Text("" if task.total is None else self._owner.describe_left())


class ComparisonProgress:
    """Shows a bar for all runs, the current runs, the time left, and a line for each run that ends.

    Args:
        trials: All trials of the comparison.
        done: Rows of the trials that were done before.
        workers: Runs at the same time.
    """

    def __init__(self, trials: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]], *, workers: int) -> None:
        self._workers = workers
        self._seconds: dict[str, list[float]] = {}
        finished = {row["config_hash"] for row in done}
        self._left = {trial["config_hash"]: trial["arm"] for trial in trials if trial["config_hash"] not in finished}
        for row in done:
            self._seconds.setdefault(row["arm"], []).append(row["seconds"])
        self._started: dict[str, float] = {}
        shown = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*shown, _LeftColumn(self), console=Console(soft_wrap=True))
        self._bar = self._progress.add_task("", total=len(trials), completed=len(done))
        self._lines: dict[str, Any] = {}

    def __enter__(self) -> ComparisonProgress:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""
        self._progress.stop()

    def start(self, name: str, trial: Mapping[str, Any]) -> None:
        """Show a run that has started, or has started again because its machine died."""
        digest = trial["config_hash"]
        self._started[digest] = time.monotonic()
        if digest not in self._lines:
            self._lines[digest] = self._progress.add_task(escape(name), total=None)

    def finish(self, name: str, row: Mapping[str, Any]) -> None:
        """Remove a run from the display, and print its result."""
        digest = row["config_hash"]
        self._progress.remove_task(self._lines.pop(digest))
        self._started.pop(digest)
        self._left.pop(digest)
        if "error" in row:
            text = f"[bold red]failed[/] {escape(name)}: {escape(row['error'][:300])}"
        else:
            self._seconds.setdefault(row["arm"], []).append(row["seconds"])
            pixels = "" if row["pixel_ap"] is None else f", pixel AP {100 * row['pixel_ap']:.1f}"
            scores = f"image AUROC {100 * row['image_auroc']:.1f}{pixels}"
            text = f"{escape(name)}: {scores}, {as_duration(row['seconds'])}"
        self._progress.console.print(text)
        self._progress.advance(self._bar)

    def describe_left(self) -> str:
        """Say how long the rest may take."""
        now = time.monotonic()
        spent = [now - started for started in list(self._started.values())]
        left = estimate_left(list(self._left.values()), self._seconds, workers=self._workers, spent=spent)
        return "time left: known after the first run" if left is None else f"about {as_duration(left)} left"
