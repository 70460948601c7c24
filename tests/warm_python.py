"""Python in a process of its own, which starts in a moment: it is forked from one that has imported what takes seconds.

That one does nothing but import, so the processes are as fresh as new ones but for the modules, and for the order of
sets: all of them hash alike. A test of what is imported, or of that order, starts a new interpreter instead.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import ForkServerProcess

IMPORTED = ["anomalib.cli.cli", "anomalib.models", "anomalib_synth.generators", "anomalib_synth.models"]


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def printed(self) -> str:
        """All of it."""
        return self.stdout + self.stderr


class WarmPython:
    """A started process: ``python ARGUMENTS``, with ``-m MODULE`` or a script.

    Args:
        arguments: Arguments of Python.
        cwd: Working directory; by default this process's.
        environment: Variables that differ from this process's.
        new_session: Whether it leads a process group of its own.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        self._printed = tempfile.TemporaryDirectory()
        variables = {**os.environ, **(environment or {})}
        given = [str(argument) for argument in arguments]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.process: ForkServerProcess = context.Process(
            target=_work, args=(given, str(cwd or Path.cwd()), variables, self._printed.name, new_session)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        pid = self.process.pid
        assert pid is not None
        return pid

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def read_line(self) -> str:
        """Wait for the first line that it prints."""
        out = Path(self._printed.name) / "out"
        while not out.exists() or b"\n" not in out.read_bytes():
            assert self.runs(), "it ended without a word"
            time.sleep(0.05)
        return out.read_text(encoding="utf-8").splitlines()[0]

    def send_signal(self, sign: int) -> None:
        """Send a signal."""
        os.kill(self.pid, sign)

    def wait(self) -> Ended:
        """Wait for the end."""
        self.process.join()
        code = self.process.exitcode
        assert code is not None
        with self._printed as folder:
            return Ended(code, *((Path(folder) / name).read_text(encoding="utf-8") for name in ("out", "err")))


def run_warm(
    arguments: Sequence[object], *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Ended:
    """Run it to its end."""
    return WarmPython(arguments, cwd=cwd, environment=environment).wait()


def _work(arguments: list[str], cwd: str, variables: dict[str, str], printed: str, new_session: bool) -> None:
    if new_session:
        os.setsid()
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(Path(printed) / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if arguments[0] == "-m":
        sys.path.insert(0, cwd)
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
