"""What is shown of long work."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from anomalib_synth import progress
from anomalib_synth.progress import PlainProgress, make_progress, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, steps: list[float]) -> list[str]:
    """Print what a task of ten steps says that is advanced after each of the given seconds."""
    out = io.StringIO()
    shown = PlainProgress(Console(file=out, width=200))
    shown.get_time = lambda: clock[0]
    task = shown.add_task("Drawing", total=len(steps))
    for seconds in steps:
        clock[0] += seconds
        shown.advance(task)
    return out.getvalue().splitlines()


def test_nothing_is_printed_when_work_is_short(clock) -> None:
    assert run(clock, [0.1] * 10) == []


def test_lines_are_printed_now_and_then_when_the_output_is_no_terminal(clock) -> None:
    lines = run(clock, [3.0] * 20)
    assert lines[0].startswith("Drawing: 1 of 20")
    assert lines[-1] == "Drawing: 20 of 20"
    assert len(lines) == 5  # every fifteen seconds of sixty, and the end
    assert all("left" in line for line in lines[1:-1])


def test_track_yields_everything_when_the_output_is_no_terminal() -> None:
    assert isinstance(make_progress(), PlainProgress)
    assert list(track(range(5), "Counting")) == list(range(5))
    assert list(track(iter("ab"), "Counting", total=2, completed=0)) == ["a", "b"]
    assert list(track([1], "Counting", disable=True)) == [1]


def test_bars_are_not_shown_when_another_stands_for_all(capsys) -> None:
    with progress.silenced():
        assert list(track(range(3), "Drawing")) == [0, 1, 2]
        with make_progress() as shown:
            shown.advance(shown.add_task("Scoring", total=2))
    assert capsys.readouterr().out == ""
    assert not isinstance(make_progress(), progress.SilentProgress)


def test_share_is_told_when_a_silent_task_advances() -> None:
    told: list[float] = []
    with progress.SilentProgress(told.append) as shown:
        task = shown.add_task("Scoring", total=4)
        shown.advance(task)
        shown.advance(task, 3)
    assert told == [0.25, 1.0]
