"""One bar over a whole build: how far it is, and the time that is left by what was measured before it began."""

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
_TELLS = 0.15  # of a step, from which its own pace counts for more than the plan


class Timeline:
    """Shows steps, each with the seconds it is expected to take; bars of what it calls are not shown.

    Args:
        console: Where; plain lines where that is no terminal.
        clock: Tells the seconds.
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
        """Say how long each step is expected to take; those that are not named keep what they had."""
        self._planned |= seconds

    def skip(self, step: str) -> None:
        """Say that a step need not be done."""
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
        """Say how much of the step is done, in [0, 1]."""
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
        """Seconds that are left: of this step by its own pace once that tells, of the others as planned."""
        others = sum(seconds for step, seconds in self._planned.items() if step != self._current)
        if not self._current:
            return others
        elapsed = self._clock() - self._began
        planned = self._planned.get(self._current, 0.0)
        own = elapsed / self._share * (1 - self._share) if self._share >= _TELLS else max(planned - elapsed, 0.0)
        return own + others

    @property
    def share(self) -> float:
        """Share of the whole that is done."""
        spent = sum(self._done.values()) + (self._clock() - self._began if self._current else 0.0)
        return spent / (spent + self.left) if spent + self.left else 0.0

    def _describe_left(self) -> str:
        return f"about {as_duration(self.left)} left" if self._planned else ""
