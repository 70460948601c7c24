"""Does ``anomalib-synth generate`` lose nothing, scale, and stay small?

    python benchmarks/generate.py --kills 200 --cold_kills 5

Kills runs with SIGKILL at random moments, resumes them until they are through, and compares every row and every byte
with an uninterrupted run: once the store is whole it starts on a new one, until the kills are used up. A run is forked
from this process, which has the libraries loaded, so that most kills meet it at work; ``--cold_kills`` are of the whole
command and its two workers at once, from its start on.

    python benchmarks/generate.py --scaling

Prints samples per second of one and of two workers, start of the processes included and left out.

    python benchmarks/generate.py --memory

Prints the largest resident memory of a run of 1,000 and of one of 20,000 samples of 64 x 64 pixels. With
``--workers 2``, of all its processes together, what they share counted once.

    git worktree add ../before COMMIT && python benchmarks/generate.py --before ../before

Prints how much processor time a sample takes, start left out, in ratio to an earlier commit, the two by turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from anomalib_synth.commands.generate import generate

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = [sys.executable, "-m", "anomalib_synth.cli", "generate"]
KINDS = ("images", "masks", "sources")


def make_normals(folder: Path, *, count: int, side: int) -> None:
    """Write textured normals, and two files that cannot be read."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 160, side)
    for number in range(count):
        stripes = 20 * ((np.arange(side) // 5 + number) % 2)
        image = ramp[:, None] + stripes + rng.integers(0, 6, (side, side))
        Image.fromarray(np.repeat(image.astype(np.uint8)[..., None], 3, axis=-1)).save(folder / f"{number:03d}.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")


def read_store(store: Path) -> tuple[list[dict], dict[str, str]]:
    """Return the rows of the manifest without their times, and the digest of every file that samples are kept in."""
    lines = (store / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]
    files = [path for kind in KINDS for path in (store / kind).rglob("*") if path.is_file()]
    return rows, {path.relative_to(store).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def fork(run: Callable[[], None]) -> int:
    """Run a function in a child process, quietly; return its id. The child ends with 0, or 1 if it raised."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        run()
        status = 0
    finally:
        os._exit(status)


def kill_after(child: int, delay: float) -> bool:
    """Kill a child after some seconds; return whether it was still running.

    Raises:
        RuntimeError: If it had failed by then.
    """
    time.sleep(delay)
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        if status:
            raise RuntimeError(f"a run ended with status {status}")
        return False
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def check_equal(store: Path, reference: tuple) -> None:
    """Compare a store with the uninterrupted run's.

    Raises:
        RuntimeError: If a sample is lost, twice there, or another.
    """
    rows, files = read_store(store)
    if rows != reference[0]:
        differing = sum(one != other for one, other in zip(rows, reference[0], strict=False))
        raise RuntimeError(f"{store}: {len(rows)} rows, not {len(reference[0])}; {differing} differ")
    if files != reference[1]:
        raise RuntimeError(f"{store}: files differ: {sorted(set(files.items()) ^ set(reference[1].items()))[:4]}")


def kill_forks(work: Path, normals: Path, *, kills: int, num_samples: int) -> int:
    """Kill forked runs until the kills are used up; return the number of stores that became whole meanwhile."""

    def run() -> None:
        generate(normals, out=out, num_samples=num_samples)

    rng = random.Random(0)
    out = work / "uninterrupted"
    started = time.monotonic()
    os.waitpid(fork(run), 0)
    longest = time.monotonic() - started
    reference = read_store(out)
    if len(reference[0]) != num_samples:
        raise RuntimeError(f"the uninterrupted run made {len(reference[0])} samples")
    stores = 0
    while kills:
        out, whole = work / f"killed_{stores}", False
        while kills and not whole:
            whole = not kill_after(fork(run), rng.uniform(0, longest))
            kills -= not whole
        _, status = os.waitpid(fork(run), 0)
        if status:
            raise RuntimeError(f"the last run into {out} ended with status {status}")
        check_equal(out, reference)
        shutil.rmtree(out)
        stores += 1
        print(f"{stores} stores whole, {kills} kills left", flush=True)
    return stores


def kill_commands(work: Path, normals: Path, *, kills: int, num_samples: int) -> None:
    """Kill the whole command with its two workers, its start included; then let it finish and compare."""
    rng = random.Random(1)
    arguments = [f"--normals={normals}", f"--num_samples={num_samples}", "--workers=2"]
    started = time.monotonic()
    subprocess.run([*COMMAND, *arguments, f"--out={work / 'whole'}"], check=True, capture_output=True)
    longest = time.monotonic() - started
    out = work / "killed"
    for _ in range(kills):
        with subprocess.Popen(
            [*COMMAND, *arguments, f"--out={out}"], stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            time.sleep(rng.uniform(0.3, 1) * longest)
            os.killpg(process.pid, signal.SIGKILL)
    subprocess.run([*COMMAND, *arguments, f"--out={out}"], check=True, capture_output=True)
    check_equal(out, read_store(work / "whole"))


def measure_seconds(normals: Path, out: Path, *options: str) -> float:
    """Run the command; return how long it takes."""
    started = time.monotonic()
    command = [*COMMAND, f"--normals={normals}", f"--out={out}", *options]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(out)
    return time.monotonic() - started


def show_scaling(work: Path, normals: Path, few: int, many: int) -> None:
    """Print how much faster two workers are than one."""
    whole, steady = [], []
    for workers in (1, 2):
        times = [
            measure_seconds(normals, work / "out", f"--workers={workers}", f"--num_samples={n}") for n in (few, many)
        ]
        whole.append(many / times[1])
        steady.append((many - few) / (times[1] - times[0]))
        print(f"{workers} worker(s): {whole[-1]:.1f} samples/s with its start, {steady[-1]:.1f} without", flush=True)
    print(f"2 over 1: {whole[1] / whole[0]:.2f} with the start, {steady[1] / steady[0]:.2f} without")


def show_memory(work: Path, normals: Path, few: int, many: int, workers: int) -> None:
    """Print the memory of a small and of a large run."""
    sizes = [measure_memory(normals, work / "out", f"--workers={workers}", f"--num_samples={n}") for n in (few, many)]
    print(
        f"{workers} worker(s), {few} samples: {sizes[0]:.0f} MiB, {many}: {sizes[1]:.0f} MiB, "
        f"{sizes[1] / sizes[0] - 1:+.1%}"
    )


def measure_memory(normals: Path, out: Path, *options: str) -> float:
    """Run the command; return the largest memory of its processes together in MiB, looked up twice a second."""
    largest = 0
    command = [*COMMAND, f"--normals={normals}", f"--out={out}", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None:
            largest = max(largest, sum(_resident(member) for member in _members(process.pid)))
            time.sleep(0.5)
    if process.returncode:
        raise RuntimeError(f"{options} ended with status {process.returncode}")
    shutil.rmtree(out)
    return largest / 1024


def show_against(work: Path, normals: Path, before: Path, few: int, many: int, rounds: int = 5) -> None:
    """Print the processor time of a sample against that of an earlier commit."""
    here = Path(__file__).parents[1]
    ratios = []
    for _ in range(rounds):
        seconds = {}
        for code in (before.resolve(), here):
            times = [measure_processor(code, normals, work / "out", f"--num_samples={n}") for n in (few, many)]
            seconds[code] = (times[1] - times[0]) / (many - few)
        ratios.append(seconds[here] / seconds[before.resolve()])
        print(" against ".join(f"{1000 * value:.1f} ms" for value in reversed(seconds.values())), flush=True)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"processor time of a sample: {statistics.median(ratios):.2f} of before ({spread})")


def measure_processor(code: Path, normals: Path, out: Path, *options: str) -> float:
    """Run the command of a checkout; return its seconds of processor time."""
    command = [*COMMAND, f"--normals={normals}", f"--out={out}", *options]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, cwd=code)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{options} ended with status {status}")
    shutil.rmtree(out)
    return usage.ru_utime + usage.ru_stime


def _members(session: int) -> list[Path]:
    """Return the processes of a session, as folders of /proc."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text()
        except OSError:
            continue  # it has ended
        if int(stat.rpartition(")")[2].split()[3]) == session:
            found.append(place)
    return found


def _resident(process: Path) -> int:
    """Return the KiB of a process, its share of what several have in common."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--cold_kills", type=int, default=0)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--before", type=Path, help="folder with an earlier commit, to compare the time with")
    parser.add_argument("--num_samples", type=int, nargs=2, default=None, help="few and many, for scaling and memory")
    parser.add_argument("--workers", type=int, default=1, help="of the runs whose memory is measured")
    parser.add_argument("--side", type=int, default=256, help="of the images for scaling")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_normals(work / "small", count=10, side=64)
        if options.kills:
            stores = kill_forks(work, work / "small", kills=options.kills, num_samples=64)
            print(f"{options.kills} kills over {stores} stores: every row and byte as without", flush=True)
        if options.cold_kills:
            kill_commands(work, work / "small", kills=options.cold_kills, num_samples=400)
            print(f"{options.cold_kills} kills of the whole command: every row and byte as without", flush=True)
        if options.scaling:
            make_normals(work / "large", count=32, side=options.side)
            show_scaling(work, work / "large", *(options.num_samples or (200, 2000)))
        if options.before:
            make_normals(work / "middle", count=16, side=options.side)
            show_against(work, work / "middle", options.before, *(options.num_samples or (24, 240)))
        if options.memory:
            show_memory(work, work / "small", *(options.num_samples or (1000, 20000)), options.workers)


if __name__ == "__main__":
    main()
