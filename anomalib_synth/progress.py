"""Bars on a terminal, plain lines elsewhere: how far something is that takes more than two seconds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Task, TaskID

T = TypeVar("T")
_FIRST, _EVERY = 2.0, 15.0  # seconds before the first plain line of a task, and between two
_silenced: list[bool] = []  # by whom another bar stands for all


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Show the rate."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s" if speed >= 0.1 else f"{speed * 60:.1f}/min")


class PlainProgress(Progress):
    """Prints a line a task now and then, for logs and pipes, where a bar would be noise."""

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, auto_refresh=False, disable=True)
        self._last: dict[TaskID, float] = {}

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count, and say so if it is time."""
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task, and say how far it is if it is time."""
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        task = next((task for task in self.tasks if task.id == task_id), None)
        if task is None or task.elapsed is None:
            return
        now = time.monotonic()
        if task_id not in self._last:
            self._last[task_id] = now - _EVERY + max(0.0, _FIRST - task.elapsed)
        is_done = task.finished and task.elapsed >= _FIRST
        if now - self._last[task_id] < (0 if is_done else _EVERY) or self._last[task_id] == float("inf"):
            return
        self._last[task_id] = float("inf") if task.finished else now
        left = "" if task.finished or task.time_remaining is None else f", {as_duration(task.time_remaining)} left"
        of = "" if task.total is None else f" of {task.total:.0f}"
        self.console.print(
            f"{' '.join(task.description.split())}: {task.completed:.0f}{of}{left}", highlight=False, markup=False
        )


class SilentProgress(Progress):
    """Shows nothing, and tells somebody else how far its latest task is.

    Args:
        listener: Called with the share that is done, in [0, 1].
    """

    def __init__(self, listener: Callable[[float], None] = lambda _: None) -> None:
        super().__init__(auto_refresh=False, disable=True)
        self._listener = listener

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count, and tell."""
        super().advance(task_id, advance)
        task = next(task for task in self.tasks if task.id == task_id)
        if task.total:
            self._listener(min(1.0, task.completed / task.total))


@contextmanager
def silenced() -> Iterator[None]:
    """Show no bars within: one bar stands for all that is done."""
    _silenced.append(True)
    try:
        yield
    finally:
        _silenced.pop()


def make_progress(*, rate: bool = False, transient: bool = False) -> Progress:
    """Return a display of bars with the time left; of plain lines where the output is no terminal.

    Args:
        rate: Show steps per second, too.
        transient: Take the bars away at the end.
    """
    if _silenced:
        return SilentProgress()
    console = Console()
    if not console.is_terminal:
        return PlainProgress(console)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [RateColumn()] if rate else []
    return Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=console, transient=transient)


def track(
    items: Iterable[T], description: str, *, total: float | None = None, completed: int = 0, disable: bool = False
) -> Iterator[T]:
    """Yield the items, and show how many there have been; the bar is gone at the end.

    Args:
        items: What is gone through.
        description: What is done with them.
        total: Their number, where they have no length.
        completed: How many were done before.
        disable: Show nothing.
    """
    if disable:
        yield from items
        return
    with make_progress(transient=True) as progress:
        yield from progress.track(items, total=total, completed=completed, description=description)


def printable(text: str) -> str:
    r"""Return a text for one line of a terminal or a log: line ends and control characters of names are written out.

    Example:
        >>> print(printable("a\nb"))
        a\nb
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


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
