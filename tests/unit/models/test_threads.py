"""Computations on one thread do not meet in a process."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
import torch

from anomalib_synth.models import threads
from anomalib_synth.models.threads import one_faiss_thread, one_thread


def try_turn(found: list[bool]) -> None:
    found.append(threads._turn.acquire(blocking=False))


def take_turn() -> None:
    with one_thread():
        pass


def test_threads_take_turns_when_two_want_one() -> None:
    before, found = torch.get_num_threads(), []
    with one_thread(), one_thread():
        other = threading.Thread(target=try_turn, args=(found,))
        other.start()
        other.join()
        assert torch.get_num_threads() == 1
    assert found == [False]
    assert torch.get_num_threads() == before


def test_turn_and_threads_are_given_back_when_the_computation_fails() -> None:
    before = torch.get_num_threads()
    with pytest.raises(OSError, match="lost"), one_thread():
        raise OSError("lost")
    assert torch.get_num_threads() == before
    other = threading.Thread(target=take_turn)
    other.start()
    other.join()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
def test_forked_process_has_its_own_turn_when_another_thread_holds_it() -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with one_thread():
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    child = multiprocessing.get_context("fork").Process(target=take_turn, daemon=True)
    child.start()
    child.join(30)
    done.set()
    holder.join()
    assert child.exitcode == 0


def test_faiss_gets_its_threads_back_when_the_computation_fails() -> None:
    faiss = pytest.importorskip("faiss")
    before, seen = faiss.omp_get_max_threads(), []

    def fail() -> None:
        seen.append(faiss.omp_get_max_threads())
        raise OSError("lost")

    faiss.omp_set_num_threads(2)
    try:
        with pytest.raises(OSError, match="lost"), one_faiss_thread():
            fail()
        assert [*seen, faiss.omp_get_max_threads()] == [1, 2]
    finally:
        faiss.omp_set_num_threads(before)
