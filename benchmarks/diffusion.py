"""What do diffusion edits cost, how many pass the checks, and how much faster are autoregressive ones?

    python benchmarks/diffusion.py --normals DIR --pipeline DIR [--steps 20] [--batch_size 4] [--gallery OUT.png]

On windows of good images, with one and the same region and text for both kinds of edit, in turns, in the same run:

- speed: diffusion edits a second (an edit and its null edit), denoising steps a second of one window, the
  autoregressive generator's edits a second and the ratio, on one thread of the CPU or on `--device`;
- memory: the largest resident set after loading and after editing (on a GPU its peak);
- acceptance: share of first draws of `DiffusionGenerator` and of `AutoregressiveGenerator` on whole images
  that pass their checks, share of images that get a defect within the budget, and the reasons of the others;
- where: mean change inside the region over that outside, before compositing, and the null edit's own change.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data.normals import read_folder
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators import (
    AnomalyGenerator,
    AutoregressiveGenerator,
    DiffusionGenerator,
    RuleBasedGenerator,
)
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.models.diffusion import DiffusionSettings
from anomalib_synth.models.editing import edit_window

PROMPTS = ["a dark scratch, high contrast", "an irregular dark stain, high contrast", "a round dent, high contrast"]


def disc(side: int, radius: float) -> torch.Tensor:
    """Return a round mask in the middle of a window, (1, side, side)."""
    place = torch.arange(side) - side / 2 + 0.5
    return ((place[:, None] ** 2 + place**2) <= radius**2).float()[None]


def peak_mebibytes(device: torch.device) -> float:
    """Return the largest memory so far, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def check_speed(
    diffusion: DiffusionGenerator, autoregressive: AutoregressiveGenerator, windows: torch.Tensor, rounds: int
) -> None:
    """Print edits and steps a second, the ratio, and memory."""
    device, count = windows.device, diffusion.editing.batch_size
    before = peak_mebibytes(device)
    editor, backend = diffusion.editor, autoregressive.backend.to(device)
    side = windows.shape[-1]
    mask = disc(side, side / 8).to(device)
    editor.edit([windows[0]], [""], seeds=[0], masks=[mask])  # loads, and warms up
    loaded = peak_mebibytes(device)
    times: dict[str, list[float]] = {"diffusion": [], "autoregressive": []}
    inside, outside, nulls = [], [], []
    for turn in range(rounds):
        rows = [(turn * count + n) % len(windows) for n in range(count)]
        prompts = [PROMPTS[row % len(PROMPTS)] for row in rows]
        part = [windows[row] for row in rows]
        start = time.perf_counter()
        changes = editor.edit(part * 2, prompts + [""] * count, seeds=rows * 2, masks=[mask] * 2 * count)
        times["diffusion"].append((time.perf_counter() - start) / count)
        start = time.perf_counter()
        for row, prompt in zip(rows, prompts, strict=True):
            edit_window(
                backend, windows[row][None], mask[None], prompt, seed=row, sampling=autoregressive.sampling
            ).image.cpu()
        times["autoregressive"].append((time.perf_counter() - start) / count)
        for edit, null in zip(changes[:count], changes[count:], strict=True):
            change = (edit - null).abs().mean(0, keepdim=True)
            inside.append(float(change[mask > 0].mean()))
            outside.append(float(change[mask == 0].mean()))
            nulls.append(float(null.abs().mean()))
    each = {name: float(np.median(values)) for name, values in times.items()}
    steps = 2 * diffusion.editing.num_inference_steps / each["diffusion"]
    print(f"speed: windows of {side} px, {diffusion.editing.num_inference_steps} steps, {count} a batch, {device}")
    print(f"speed: diffusion {1 / each['diffusion']:.2f} edits/s ({steps:.1f} steps/s), null edit included")
    print(f"speed: autoregressive {1 / each['autoregressive']:.1f} edits/s")
    print(f"speed: ratio {each['diffusion'] / each['autoregressive']:.1f}, {rounds} rounds in turns")
    weights = sum(
        parameter.numel()
        for part in editor.pipe.components.values()
        if isinstance(part, torch.nn.Module)
        for parameter in part.parameters()
    )
    print(f"memory: {before:.0f} MiB before, {loaded:.0f} loaded, {peak_mebibytes(device):.0f} at most; ", end="")
    print(f"{weights / 1e6:.1f} M weights in {diffusion.editing.dtype}")
    print(
        f"where: change inside the region {255 * np.mean(inside):.1f} grey levels, "
        f"outside {255 * np.mean(outside):.1f}; the null edit's {255 * np.mean(nulls):.1f}",
        flush=True,
    )


def check_acceptance(generator: AnomalyGenerator, images: torch.Tensor) -> None:
    """Print which share of draws passes the checks, and why the others do not."""
    name = f"{type(generator).__name__} {getattr(generator, 'mask_mode', '')}".strip()
    start = time.perf_counter()
    sample = generator(images, seeds=list(range(len(images))))
    seconds = time.perf_counter() - start
    first = [record.attempt == 0 and bool(ok) for record, ok in zip(sample.provenance, sample.accepted, strict=True)]
    print(
        f"acceptance: {name}: {np.mean(first):.0%} of first draws, {float(sample.accepted.float().mean()):.0%} of "
        f"{len(images)} images; {seconds / max(1, int(sample.accepted.sum())):.2f} s an accepted sample"
    )
    for reason, count in Counter(reason for reason in sample.reason if reason).most_common(5):
        print(f"  {count} x {reason}")
    print(end="", flush=True)


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normals", type=Path, required=True)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--scheduler", default=None)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gallery", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = DiffusionSettings(
        num_inference_steps=options.steps,
        batch_size=options.batch_size,
        scheduler=options.scheduler,
        dtype=options.dtype,
        device=options.device,
    )
    images = torch.stack(list(read_folder(options.normals, image_size=options.image_size, limit=options.images)))
    teacher = RuleBasedGenerator(PHYSICAL, foreground=None)
    windows = WindowSampler(list(images), teacher, size=options.window, seed=2).draw_sources(0, 32)
    diffusion = DiffusionGenerator(pipeline=options.pipeline, editing=settings)
    autoregressive = AutoregressiveGenerator(bundle=options.bundle)
    check_speed(diffusion, autoregressive, windows.to(options.device), options.rounds)
    by_region = DiffusionGenerator(pipeline=options.pipeline, editing=settings, mask_mode="region")
    for generator in (diffusion, by_region, autoregressive):
        check_acceptance(generator.prepare(images), images)
    if options.gallery is not None:
        rows = list(range(min(16, len(images))))
        sample = diffusion(images[rows], seeds=rows)
        Image.fromarray(draw_sample_grid(sample, rows)).save(options.gallery)


if __name__ == "__main__":
    main()
