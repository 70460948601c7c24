"""Which files are taken, and when. Nothing here takes time: what happens between two looks is what `sleep` does."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from anomalib_synth.prediction import watching
from anomalib_synth.prediction.watching import FolderSource, StopRequest, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def watch(tmp_path, monkeypatch) -> Callable[..., list[list[str]]]:
    """Run a watcher: each step is done between two looks; returns what each look yielded."""

    def run(*steps: Callable[[], object], unreadable: tuple[str, ...] = (), **options: object) -> list[list[str]]:
        left, more = list(steps), iter(range(50))
        stop = StopRequest()

        def between(seconds: float) -> None:
            if left:
                left.pop(0)()
            else:
                next(more)  # no watch is endless here
                stop.asked = stop.asked or "until_idle" not in options

        monkeypatch.setattr(watching, "sleep", between)
        watcher = Watcher(tmp_path, **{"interval": 0.1, "until_idle": None, "stop": stop, **options})
        found = []
        for look in watcher.looks():
            names = []
            for file in look.files:
                bad = file.name in unreadable and len(file.path.read_bytes()) < 5
                names += [] if bad and watcher.give_back(file) else [file.name]
            found.append(names + sorted(look.foreign))
        return [names for names in found if names]

    return run


def nothing() -> None:
    pass


def test_file_is_taken_once_two_looks_find_it_the_same(watch, tmp_path) -> None:
    path = tmp_path / "a.png"
    assert watch(
        lambda: path.write_bytes(b"1"),
        lambda: path.write_bytes(b"12"),
        lambda: path.write_bytes(b"123"),
        nothing,
        nothing,
        nothing,
    ) == [["a.png"]]


def test_masks_are_not_taken_when_their_images_are_moved_away(watch, tmp_path) -> None:
    for name in ("a.png", "a_mask.png"):
        (tmp_path / name).write_bytes(b"1")
    assert watch(nothing, nothing, (tmp_path / "a.png").unlink, nothing, nothing) == [["a.png"]]


def test_file_is_taken_again_when_it_is_replaced(watch, tmp_path) -> None:
    path, other = tmp_path / "latest.png", tmp_path / "other"
    path.write_bytes(b"first")
    other.write_bytes(b"again")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert watch(nothing, nothing, lambda: other.replace(path), nothing, nothing) == [["latest.png"]] * 2


def test_files_are_taken_together_when_they_are_moved_in(watch, tmp_path) -> None:
    inside = tmp_path.parent / f"{tmp_path.name}_in"
    inside.mkdir()
    (inside / "b.png").write_bytes(b"b")
    (inside / "a.jpg").write_bytes(b"a")
    assert watch(lambda: inside.rename(tmp_path / "shift"), nothing, nothing) == [["shift/a.jpg", "shift/b.png"]]


def test_file_is_forgotten_when_it_is_gone_before_it_is_taken(watch, tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    assert watch(path.unlink, nothing, lambda: path.write_bytes(b"1"), nothing, nothing) == [["a.png"]]


def test_file_is_taken_again_when_it_was_away(watch, tmp_path) -> None:
    path, away = tmp_path / "a.png", tmp_path / "a.kept"
    path.write_bytes(b"1")
    steps = [nothing, nothing, lambda: path.rename(away), nothing, lambda: away.rename(path), nothing, nothing]
    assert watch(*steps) == [["a.png"]] * 2


def test_unreadable_file_is_tried_again_until_it_is_whole(watch, tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    steps = [*[nothing] * 4, lambda: path.write_bytes(b"whole"), nothing, nothing]
    assert watch(*steps, unreadable=("a.png",)) == [["a.png"]]
    assert path.read_bytes() == b"whole"


def test_unreadable_file_is_given_up_when_it_never_changes(watch, tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "empty.png").touch()
    found = watch(*[nothing] * 12, unreadable=("a.png", "empty.png"))
    assert found == [["a.png", "empty.png"]]


def test_foreign_format_is_named_once(watch, tmp_path) -> None:
    (tmp_path / "a.heic").write_bytes(b"1")
    assert watch(nothing, nothing, nothing) == [["a.heic"]]


@pytest.mark.parametrize("until_idle", [0, 0.25])
def test_watch_ends_when_nothing_is_new_for_a_while(watch, tmp_path, until_idle) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    late = tmp_path / "b.png"
    found = watch(nothing, lambda: late.write_bytes(b"2"), nothing, nothing, until_idle=until_idle)
    assert found == [["a.png"], ["b.png"]]


def test_folder_that_is_watched_may_be_empty(watch) -> None:
    assert watch(nothing) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_the_second_one_interrupts(number) -> None:
    stop = StopRequest()
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with stop.on_signal():
        assert signal.getsignal(number) not in before  # else the next line ends the tests
        signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_signals_are_left_alone_when_another_thread_judges() -> None:
    failed = []

    def run() -> None:
        try:
            with StopRequest().on_signal():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed


def test_one_image_is_a_source_and_a_folder_without_any_is_none(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (look,) = FolderSource(tmp_path / "a.png").looks()
    assert [file.name for file in look.files] == ["a.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="`images` must be a folder with images"):
        FolderSource(tmp_path / "empty")
