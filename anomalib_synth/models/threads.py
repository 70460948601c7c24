"""Runs computations on one thread if their last bits would depend on the number of threads."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_turn = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: with several, products may be summed in another order.

    The number of threads is a setting of the whole process, so callers take turns: otherwise one caller would reset it
    while another still computes.
    """
    with _turn:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Have faiss, which counts threads of its own, compute on one: sums in one order."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _renew() -> None:
    """Replace the lock in a forked process, where the thread that held it does not exist."""
    global _turn  # noqa: PLW0603
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
