"""A lock is given back when its holder is done with it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading

import pytest

from anomalib_synth.store import StoreError
from anomalib_synth.store.locking import exclusive


def test_second_holder_is_refused_while_the_lock_is_held(tmp_path) -> None:
    with (
        exclusive(tmp_path / ".lock", wait=0),
        pytest.raises(StoreError, match="Another run is writing"),
        exclusive(tmp_path / ".lock", wait=0),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_lock_is_free_when_a_process_that_was_forked_meanwhile_lives_on(tmp_path) -> None:
    reading, writing = os.pipe()
    with exclusive(tmp_path / ".lock", wait=0):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent lets go
            os._exit(0)
    try:
        with exclusive(tmp_path / ".lock", wait=0):
            pass
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_lock_is_free_when_its_holder_was_killed(tmp_path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with exclusive(tmp_path / ".lock", wait=0):
            os.write(writing, b"!")
            signal.pause()
    os.read(reading, 1)
    with pytest.raises(StoreError, match="Another run is writing"), exclusive(tmp_path / ".lock", wait=0):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with exclusive(tmp_path / ".lock", wait=0):
        assert (tmp_path / ".lock").exists()
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_lock_stays_held_when_a_process_that_was_forked_meanwhile_ends(tmp_path) -> None:
    with exclusive(tmp_path / ".lock", wait=0):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(StoreError), exclusive(tmp_path / ".lock", wait=0):
            pass


def test_waiter_gets_the_lock_when_its_holder_lets_go_in_time(tmp_path) -> None:
    waiting = threading.Event()
    taken = []

    def take() -> None:
        waiting.set()
        with exclusive(tmp_path / ".lock", wait=60):
            taken.append(True)

    thread = threading.Thread(target=take)
    with exclusive(tmp_path / ".lock", wait=0):
        thread.start()
        waiting.wait()
        assert not taken
    thread.join()
    assert taken


def test_error_of_the_block_is_passed_on_when_it_looks_like_that_of_the_lock(tmp_path) -> None:
    from filelock import Timeout

    with pytest.raises(Timeout), exclusive(tmp_path / ".lock", wait=0):
        raise Timeout("another file")
    with exclusive(tmp_path / ".lock", wait=0):
        pass


def test_file_system_without_locks_is_not_mistaken_for_another_run(tmp_path, monkeypatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks available"), exclusive(tmp_path / ".lock", wait=0):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_to_is_said_so(tmp_path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError), exclusive(tmp_path / ".lock", wait=0):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_folder_that_is_not_there_is_said_so(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "gone" / ".lock", wait=0):
        pass


def test_holder_is_named_as_the_caller_says_it(tmp_path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path, wait=0), pytest.raises(StoreError, match="Busy"), exclusive(path, wait=0, busy="Busy"):
        pass
