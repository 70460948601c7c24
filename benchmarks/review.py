"""How long the review of a large store takes to open.

    python benchmarks/review.py --num_samples 20000

Generates a store of small samples, then opens it in a new process as ``anomalib-synth review`` does and asks for the
first page as a browser would: its samples, and the thumbnails and outlines of all of them. Prints the seconds of each
and, for other pages, of a filter and of sorting.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image

SERVE = """
import sys, time
from pathlib import Path
from anomalib_synth.report.review import serve
from anomalib_synth.store import SampleStore
start = time.perf_counter()
store = SampleStore.open(Path(sys.argv[1]))
print(time.perf_counter() - start, flush=True)
serve(store, host="127.0.0.1", port=0, open_browser=False)
"""


def make_store(out: Path, normals: Path, num_samples: int) -> None:
    """Generate samples of 64 x 64 pixels."""
    normals.mkdir()
    rng = np.random.default_rng(0)
    for number in range(100):
        image = np.linspace(60, 160, 64)[:, None] + rng.integers(0, 8, (64, 64))
        Image.fromarray(image.astype(np.uint8)).convert("RGB").save(normals / f"{number:03d}.png")
    command = [sys.executable, "-m", "anomalib_synth.cli", "generate", f"--normals={normals}", f"--out={out}"]
    subprocess.run([*command, f"--num_samples={num_samples}", "--batch_size=16"], check=True)


def ask(address: str) -> tuple[float, bytes]:
    """Return the seconds an answer took, and the answer."""
    start = time.perf_counter()
    with urlopen(address) as answer:
        data = answer.read()
    return time.perf_counter() - start, data


def main() -> None:
    """Generate, open, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_samples", type=int, default=20_000)
    parser.add_argument("--store", type=Path, default=None, help="an existing store, in place of a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = options.store or Path(name) / "store"
        if options.store is None:
            make_store(store, Path(name) / "normals", options.num_samples)
        with subprocess.Popen([sys.executable, "-c", SERVE, str(store)], stdout=subprocess.PIPE, text=True) as process:
            opening = float(process.stdout.readline())
            address = process.stdout.readline().split("): ")[1].split()[0]
            first, data = ask(f"{address}api/samples")
            page = json.loads(data)
            pictures = 0.0
            for sample in page["samples"]:
                for picture in ("image.webp", "outline.svg") if sample["drawn"] else ():
                    pictures += ask(f"{address}api/samples/{sample['id']}/{picture}")[0]
            filtered, _ = ask(f"{address}api/samples?family={page['facets']['family'][0]['name']}&range=quality:0.5:")
            ordered, _ = ask(f"{address}api/samples?sort=visibility&order=desc&offset=6000")
            process.terminate()
    count = page["counts"]["total"]
    print(
        f"{count} samples: opened in {opening:.2f} s, first page in {first:.2f} s, its {len(page['samples'])} samples'"
    )
    print(f"pictures in {pictures:.2f} s: {opening + first + pictures:.2f} s together.")
    print(f"Another filter {filtered:.2f} s, another order {ordered:.2f} s.")


if __name__ == "__main__":
    main()
