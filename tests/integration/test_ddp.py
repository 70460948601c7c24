"""Distributed training on two processes (gloo) draws the same defects as one process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.warm_python import run_warm

REPOSITORY = Path(__file__).parents[2]


def run(root: Path, out: Path, devices: int, model: str = "supersimplenet") -> list[dict[str, str]]:
    """Train in as many processes; Lightning starts all but the first."""
    out.mkdir()
    environment = {"PL_TORCH_DISTRIBUTED_BACKEND": "gloo", "PYTHONPATH": str(REPOSITORY)}
    arguments = ["-m", "tests.integration.ddp_run", root, out, devices, model]
    ended = run_warm(arguments, cwd=REPOSITORY, environment=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    deadline = time.monotonic() + 120
    while len(files := sorted(out.glob("rank_*.json"))) < devices:  # the first process does not wait for the others
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(parts_root, tmp_path) -> None:
    (alone,) = run(parts_root, tmp_path / "one", 1)
    first, second = run(parts_root, tmp_path / "two", 2)
    for seen in (alone, first, second):
        del seen["model"]
    assert first
    assert second
    assert set(first) != set(second)
    together = first | second
    common = alone.keys() & together.keys()
    assert len(common) >= 8
    assert all(alone[path] == together[path] for path in common)


@pytest.mark.slow
def test_realnet_selects_and_learns_alike_in_both_processes(parts_root, tmp_path) -> None:
    first, second = run(parts_root, tmp_path / "two", 2, "realnet")
    assert len(first) > 1
    assert first.keys() != second.keys()
    assert first["model"] == second["model"]
