"""A lock is given back when its holder is done with it."""

from __future__ import annotations

import os
import sys

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
