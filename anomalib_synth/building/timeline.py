"""One progress bar for a whole build, with the time that is left according to the plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from anomalib_synth.progress import as_duration, printable, silenced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_EVERY = 15.0  # seconds between two plain lines
_TELLS = 0.15  # share of a step; from there on its own pace counts instead of the plan


class Timeline:
    """Shows the steps of a build and the time that is left; the progress bars of everything else are silenced.

    Args:
        console: Where to show them; plain lines if that is not a terminal.
        clock: Returns the time in seconds.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console()
        self._clock = clock
        self._planned: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._current, self._share = "", 0.0
        self._began = self._said = clock()
        self._silence = silenced()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._task = self._bar.add_task("", total=1.0, left="")

    def __enter__(self) -> Timeline:
        """Begin to show."""
        self._silence.__enter__()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()
        self._silence.__exit__(kind, error, traceback)

    def plan(self, seconds: Mapping[str, float]) -> None:
        """Set how many seconds each step is expected to take; other steps keep theirs."""
        self._planned |= seconds

    def skip(self, step: str) -> None:
        """Take a step that need not be done out of the plan."""
        self._planned.pop(step, None)

    def start(self, step: str, description: str) -> None:
        """Begin a step."""
        self.finish()
        self._current, self._share, self._began = step, 0.0, self._clock()
        left = self._describe_left()
        self._bar.update(self._task, description=description, completed=self.share, left=left)
        if not self.console.is_terminal:
            self.console.print(f"{description} ...{f' ({left})' if left else ''}", highlight=False, markup=False)
        self._said = self._clock()

    def advance(self, share: float) -> None:
        """Set the share of the step that is done, in [0, 1]."""
        self._share = max(self._share, min(1.0, share))
        left = self._describe_left()
        self._bar.update(self._task, completed=self.share, left=left)
        now = self._clock()
        if not self.console.is_terminal and now - self._said >= _EVERY:
            self._said = now
            self.console.print(f"  {self._share:.0%} of this step, {left}", highlight=False, markup=False)

    def finish(self) -> None:
        """End the step, if there is one."""
        if self._current:
            self._done[self._current] = self._clock() - self._began
            self._planned.pop(self._current, None)
            self._current = ""

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    @property
    def left(self) -> float:
        """Seconds that are left: for this step by its own pace, once it is known, and for the others as planned."""
        others = sum(seconds for step, seconds in self._planned.items() if step != self._current)
        if not self._current:
            return others
        elapsed = self._clock() - self._began
        planned = self._planned.get(self._current, 0.0)
        own = elapsed / self._share * (1 - self._share) if self._share >= _TELLS else max(planned - elapsed, 0.0)
        return own + others

    @property
    def share(self) -> float:
        """Share of the whole build that is done, in [0, 1]."""
        spent = sum(self._done.values()) + (self._clock() - self._began if self._current else 0.0)
        return spent / (spent + self.left) if spent + self.left else 0.0

    def _describe_left(self) -> str:
        return f"about {as_duration(self.left)} left" if self._planned else ""
