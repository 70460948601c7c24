"""Does the autoregressive edit keep its gate, follow the text, look better than pasting, and run fast?

    python benchmarks/autoregressive.py --normals DIR [--bundle DIR] [--gallery OUT.png]

On good images that no model was trained on, prints:

- gate: share of tokens outside the mask that are the source's, leakage before compositing, and an empty mask;
- text: a classifier is trained on rule-based defects (their windows and families, never on edits) and names the family
  of edits that were drawn into one and the same round region, so that the outline gives nothing away; and of edits in
  the outlines that the generator draws; chance is 1 / 13;
- tone: share of pairs "dark" against "bright" whose in-mask mean goes the right way; strength: Spearman's correlation;
- border: gradient step across the mask's border over that inside, for edits and for pasting another place;
- speed: edits a second against a latent diffusion of as many parameters (diffusers' UNet, 20 steps, guidance), same
  window, same run, one thread; and the cost of a mask of 5 % of the window over that of the whole window.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data.normals import read_folder
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.models.editing import edit_window

PAIRS = [
    ("a dark scratch, high contrast", "a bright scratch, high contrast"),
    ("a dark crack, high contrast", "a pale crack, high contrast"),
    ("an irregular dark stain, high contrast", "an irregular whitish stain, high contrast"),
]
SIDE = 64


def disc(radius: float) -> torch.Tensor:
    """Return a round mask in the middle of a window."""
    place = torch.arange(SIDE) - SIDE / 2 + 0.5
    return ((place[:, None] ** 2 + place**2) <= radius**2).float()[None, None]


def check_gate(generator: AutoregressiveGenerator, windows: torch.Tensor) -> None:
    """Print whether tokens outside the mask are the source's."""
    backend, mask = generator.backend, disc(12)
    kept, total, leaks = 0, 0, []
    for n, window in enumerate(windows[:32]):
        edit = edit_window(backend, window[None], mask, "a dark stain", seed=n, sampling=generator.sampling)
        for scale, (drawn, source) in enumerate(zip(edit.tokens, edit.source, strict=True)):
            outside = (
                ~backend.gate(mask, scale) if scale >= backend.frozen_scales else torch.ones_like(drawn, dtype=bool)
            )
            kept, total = kept + int((drawn == source)[outside].sum()), total + int(outside.sum())
        leaks.append(edit.leakage)
    empty = edit_window(
        backend, windows[:1], torch.zeros(1, 1, SIDE, SIDE), "a stain", seed=0, sampling=generator.sampling
    )
    print(f"gate: {kept} of {total} tokens outside are the source's; leakage {255 * np.mean(leaks):.2f} grey levels")
    print(f"gate: an empty mask returns the input bit for bit: {torch.equal(empty.image, windows[:1])}", flush=True)


class Classifier(nn.Module):
    """A small net that names the family of a defect from the window before and after."""

    def __init__(self) -> None:
        super().__init__()
        widths = [6, 32, 64, 96, 128]
        self.layers = nn.Sequential(
            *[
                layer
                for a, b in itertools.pairwise(widths)
                for layer in (nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(8, b), nn.ReLU(), nn.MaxPool2d(2))
            ],
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, len(PHYSICAL)),
        )

    def forward(self, image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) twice -> (B, families)."""
        return self.layers(torch.cat([image - 0.5, 4 * (image - source)], 1))


def train_classifier(sampler: WindowSampler, steps: int) -> Classifier:
    """Train on rule-based defects alone."""
    torch.manual_seed(0)
    net = Classifier()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        batch = sampler.draw(step, 48)
        wanted = torch.tensor([PHYSICAL.index(family) for family in batch.families])
        loss = F.cross_entropy(net(batch.image, batch.source), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return net.eval()


@torch.no_grad()
def recognise(net: Classifier, image: torch.Tensor, source: torch.Tensor) -> list[str]:
    """Return the family the classifier names for each window."""
    return [PHYSICAL[index] for index in net(image, source).argmax(1).tolist()]


def check_text(generator: AutoregressiveGenerator, net: Classifier, windows: torch.Tensor, held: WindowSampler) -> None:
    """Print how often the prompted family is recognised."""
    batch = held.draw(2**41, 400)
    real = np.mean([a == b for a, b in zip(recognise(net, batch.image, batch.source), batch.families, strict=True)])
    captions = {family: [] for family in PHYSICAL}
    for n in range(4000):
        family, params = generator.shapes.make_params(n, 256, 256)
        captions[family.name].append(f"{family.caption(params)}, high contrast")
    asked, named, drawn = [], [], []
    for family in PHYSICAL:
        for n, window in enumerate(windows[:24]):
            edit = edit_window(
                generator.backend, window[None], disc(13), captions[family][n], seed=n, sampling=generator.sampling
            )
            asked.append(family)
            drawn.append(torch.where(disc(13) > 0, edit.image.clamp(0, 1), window[None])[0])
    source = windows[:24].repeat(len(PHYSICAL), 1, 1, 1)
    named = recognise(net, torch.stack(drawn), source)
    hit = np.mean([a == b for a, b in zip(asked, named, strict=True)])
    print(f"text: rule-based defects on held-out normals are recognised in {real:.1%}")
    print(f"text: edits in one round region {hit:.1%}, {hit * len(PHYSICAL):.1f} times chance", flush=True)
    window_generator = AutoregressiveGenerator(
        bundle=generator.bundle, size=(0.1, 0.6), foreground=None, strength=(1.0, 1.0)
    )
    sample = window_generator(windows, seeds=list(range(len(windows))))
    rows = sample.accepted.nonzero().flatten()
    families = [sample.provenance[row].family for row in rows.tolist()]
    free = recognise(net, sample.image[rows], sample.source[rows])
    hit = np.mean([a == b for a, b in zip(families, free, strict=True)])
    print(f"text: edits in the generator's outlines {hit:.1%}, {hit * len(PHYSICAL):.1f} times chance")
    table = pd.crosstab(pd.Series(asked, name="asked"), pd.Series(named, name="named"))
    print(table.reindex(index=PHYSICAL, columns=PHYSICAL, fill_value=0).to_string(), flush=True)


def check_tone_and_strength(generator: AutoregressiveGenerator, windows: torch.Tensor) -> None:
    """Print whether tone words and strength do what they say."""
    mask, right, total, correlations = disc(10), 0, 0, []
    inside = mask.expand(1, 3, -1, -1) > 0
    for n, window in enumerate(windows[:40]):

        def mean_of(prompt: str, strength: float = 1.0, n: int = n, window: torch.Tensor = window) -> float:
            edit = edit_window(
                generator.backend,
                window[None],
                mask,
                prompt,
                seed=n,
                sampling=generator.sampling,
                strength=strength,
            )
            return float((edit.image.clamp(0, 1) - (window[None] if strength < 1 else 0))[inside].mean())

        for dark, bright in PAIRS:
            right, total = right + (mean_of(dark) < mean_of(bright)), total + 1
        changes = []
        for strength in (0.2, 0.4, 0.6, 0.8, 0.999):
            edit = edit_window(
                generator.backend, window[None], mask, "a dark stain, high contrast", seed=n,
                sampling=generator.sampling, strength=strength,
            )  # fmt: skip
            changes.append(float((edit.image.clamp(0, 1) - window[None])[inside].abs().mean()))
        correlations.append(spearmanr(range(5), changes).statistic)
    print(f"tone: {right} of {total} pairs go the right way ({right / total:.1%})")
    print(f"strength: Spearman {np.mean(correlations):.3f} in the mean, {min(correlations):.2f} at worst", flush=True)


def check_border(generator: AutoregressiveGenerator, windows: torch.Tensor) -> None:
    """Print the gradient step across the border over that inside."""
    mask = disc(12)
    dilated = F.max_pool2d(mask, 3, 1, 1)
    eroded = 1 - F.max_pool2d(1 - mask, 3, 1, 1)
    ring, core = (dilated - eroded) > 0, eroded > 0
    ratios = {"edit": [], "pasting": []}
    for n, window in enumerate(windows[:64]):
        edit = edit_window(generator.backend, window[None], mask, "a stain", seed=n, sampling=generator.sampling)
        pasted = windows[(n + 1) % len(windows)][None]
        for name, inner in (("edit", edit.image.clamp(0, 1)), ("pasting", pasted)):
            image = torch.where(mask > 0, inner, window[None]).mean(1, keepdim=True)
            slope = F.pad(image.diff(dim=-1).abs(), (0, 1)) + F.pad(image.diff(dim=-2).abs(), (0, 0, 0, 1))
            ratios[name].append(float(slope[ring].mean() / slope[core].mean().clamp_min(1e-3)))
    print("border: " + ", ".join(f"{name} {np.median(values):.2f}" for name, values in ratios.items()), flush=True)


@torch.no_grad()
def check_speed(generator: AutoregressiveGenerator, windows: torch.Tensor) -> None:
    """Print edits a second against a latent diffusion of as many parameters, and what a small mask costs."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    backend = generator.backend
    size = sum(p.numel() for p in backend.model.parameters())
    net = UNet2DConditionModel(
        sample_size=16, in_channels=32, out_channels=16, block_out_channels=(48, 96), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128, attention_head_dim=8, norm_num_groups=8,
    ).eval()  # fmt: skip
    scheduler = DDIMScheduler()
    text = torch.zeros(2, 16, 128)
    small, whole = disc(8.2), torch.ones(1, 1, SIDE, SIDE)

    def diffuse(window: torch.Tensor) -> None:
        z = backend.tokenizer.encode(window)
        noisy = torch.randn_like(z)
        scheduler.set_timesteps(20)
        for t in scheduler.timesteps:
            twice = torch.cat([noisy, z], 1).repeat(2, 1, 1, 1)
            null, wanted = net(twice, t, text).sample.chunk(2)
            noisy = scheduler.step(null + 7.5 * (wanted - null), t, noisy).prev_sample
        backend.tokenizer.decode(noisy)

    def edit(window: torch.Tensor, mask: torch.Tensor) -> None:
        edit_window(backend, window, mask, "a dark scratch", seed=0, sampling=generator.sampling)

    runs = {
        "diffusion": diffuse,
        "edit": lambda window: edit(window, small),
        "whole": lambda window: edit(window, whole),
    }
    times = {name: [] for name in runs}
    for n in range(13):
        for name, run in runs.items():
            start = time.perf_counter()
            run(windows[n : n + 1])
            times[name].append(time.perf_counter() - start)
    median = {name: float(np.median(values[1:])) for name, values in times.items()}
    parameters = sum(p.numel() for p in net.parameters())
    print(f"speed: parameters {size / 1e6:.2f} M, the diffusion's {parameters / 1e6:.2f} M")
    print(f"speed: {median['diffusion'] / median['edit']:.1f} times the edits a second of 20 steps of diffusion")
    print(
        f"speed: a mask of {float(small.mean()):.1%} costs {median['edit'] / median['whole']:.0%} of the whole window",
        flush=True,
    )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normals", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--classifier_steps", type=int, default=600)
    parser.add_argument("--gallery", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = list(read_folder(options.normals, image_size=options.image_size, limit=120))
    generator = AutoregressiveGenerator(bundle=options.bundle)
    teacher = RuleBasedGenerator(PHYSICAL, size=(0.1, 0.6), strength=(0.8, 1.0), foreground=None)
    half = len(images) // 2
    training = WindowSampler(images[:half], teacher, size=SIDE, seed=1)
    held = WindowSampler(images[half:], teacher, size=SIDE, seed=2)
    windows = held.draw_sources(0, 256)
    check_gate(generator, windows)
    check_tone_and_strength(generator, windows)
    check_border(generator, windows)
    check_speed(generator, windows)
    if options.gallery is not None:
        generator.prepare(images[:half])
        chosen = torch.stack(images[half:])[torch.arange(64) % (len(images) - half)]
        sample = generator(chosen, seeds=list(range(64)))
        Image.fromarray(draw_sample_grid(sample, list(range(64)))).save(options.gallery)
        print(f"gallery: {int(sample.accepted.sum())} of 64 accepted")
    check_text(generator, train_classifier(training, options.classifier_steps), windows, held)


if __name__ == "__main__":
    main()
