"""What do words and surroundings decide in an autoregressive edit?

    python benchmarks/words.py --normals DIR [--bundle DIR] [--classifier_steps 400] [--count 48]

On good images that no model was trained on, prints:

- context: how far noise inside the region moves the logits, over how far the same noise around it does; the tokens that
  are drawn before are the same in all runs;
- type: a classifier learns to name the family of rule-based defects by what they show in regions of any shape, the
  middle of a window or not, never of edits; then it names that of edits of one and the same disc, for captions of every
  physical family: what the outline says is gone. Chance is 1 / 13;
- size and position: share of pairs of "small" and "large" (or "short" and "long") whose masks go the right way, and of
  masks whose centre lies in the third of the image that the prompt names;
- noun: change between the edits of two nouns with one seed, over that between two seeds with one noun, same disc;
- visibility: of thin types in outlines, that of edits over that of the rules at the same strength, in the median, with
  the share of draws that pass the checks.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from autoregressive import PHYSICAL, Classifier, disc
from torch.nn import functional as F

from anomalib_synth.data.normals import read_folder
from anomalib_synth.fitting.regions import vary_regions
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.models.editing import TokenBackend, edit_window

THIN = ("scratch", "crack", "fibre", "thread_pull", "misprint")
NOUNS = ("scratch", "crack", "stain", "dent", "hole", "bubble", "burn", "patch of pitting corrosion", "misprint")
RADIUS = 13
SIGMA = 0.1


@torch.no_grad()
def read_logits(backend: TokenBackend, image: torch.Tensor, mask: torch.Tensor, prompt: str, tokens: list) -> list:
    """Return the logits of every drawn scale for a text, given which tokens are drawn."""
    shown, around = backend.encode(backend.hide(image, mask))
    begun = backend.begin(shown, mask, ["", prompt])
    known, found = torch.zeros_like(shown), []
    for scale, kept in enumerate(around):
        mixed = kept
        for gate in backend.groups(mask, scale) if scale >= backend.frozen_scales else ():
            found.append(backend.logits(begun, known, mixed, gate, scale)[1])
            mixed = torch.where(gate, tokens[scale], mixed)
        known = known + backend.embed(mixed, scale)
    return found


def check_context(backend: TokenBackend, windows: torch.Tensor) -> None:
    """Print how far noise inside and around moves the logits."""
    mask, moved = disc(RADIUS), {"inside": [], "around": []}
    for n, window in enumerate(windows):
        noise = SIGMA * torch.randn(window.shape, generator=torch.Generator().manual_seed(n))
        tokens = backend.encode(window[None])[1]
        texts = "a dark stain, high contrast"
        plain = read_logits(backend, window[None], mask, texts, tokens)
        for name, where in (("inside", mask), ("around", 1 - mask)):
            other = read_logits(backend, (window[None] + noise * where).clamp(0, 1), mask, texts, tokens)
            moved[name].append(np.mean([float((a - b).abs().mean()) for a, b in zip(plain, other, strict=True)]))
    inside, around = (float(np.mean(values)) for values in moved.values())
    print(f"context: noise inside moves a logit by {inside:.3f}, around by {around:.3f}; {inside / around:.2f} times")


def train_reader(sampler: WindowSampler, steps: int) -> Classifier:
    """Train on rule-based defects in outlines and regions."""
    torch.manual_seed(0)
    net = Classifier()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        batch = vary_regions(sampler.draw(step, 40), step, share=0.8)
        wanted = torch.tensor([PHYSICAL.index(family) for family in batch.families])
        loss = F.cross_entropy(net(batch.image, batch.source), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return net.eval()


def draw_captions(count: int) -> dict[str, list[str]]:
    """Return captions of every family, high in contrast."""
    found = {}
    for family in PHYSICAL:
        draws = [RuleBasedGenerator([family]).make_params(seed, 256, 256) for seed in range(count)]
        found[family] = [f"{drawn.caption(params)}, high contrast" for drawn, params in draws]
    return found


def draw_disc(generator: AutoregressiveGenerator, window: torch.Tensor, prompt: str, seed: int) -> torch.Tensor:
    """Return a window with an edit in the disc."""
    mask = disc(RADIUS)
    edit = edit_window(generator.backend, window[None], mask, prompt, seed=seed, sampling=generator.sampling)
    return torch.where(mask > 0, edit.image.clamp(0, 1), window[None])[0]


@torch.no_grad()
def check_type(
    generator: AutoregressiveGenerator, training: WindowSampler, held: WindowSampler, windows: torch.Tensor, steps: int
) -> None:
    """Print how often the type that was asked for is recognised from the filling."""
    captions = draw_captions(len(windows))
    asked = torch.tensor([number for number in range(len(PHYSICAL)) for _ in windows])
    edits = [draw_disc(generator, w, captions[f][n], n) for f in PHYSICAL for n, w in enumerate(windows)]
    image, source = torch.stack(edits), windows.repeat(len(PHYSICAL), 1, 1, 1)
    batch = vary_regions(held.draw(2**41, 300), 1, share=1.0)
    with torch.enable_grad():
        net = train_reader(training, steps)
    wanted = torch.tensor([PHYSICAL.index(family) for family in batch.families])
    real = float((net(batch.image, batch.source).argmax(1) == wanted).float().mean())
    right = (net(image, source).argmax(1) == asked).float().view(len(PHYSICAL), -1).mean(1)
    times = float(right.mean()) * len(PHYSICAL)
    print(f"type: {float(right.mean()):.1%} of a disc's edits recognised, {times:.1f} times chance; rules {real:.1%}")
    print("  " + ", ".join(f"{name} {value:.0%}" for name, value in zip(PHYSICAL, right.tolist(), strict=True)))


def check_size_and_position(generator: AutoregressiveGenerator, images: torch.Tensor) -> None:
    """Print whether masks follow the words for size and place."""
    count, seeds = len(images), list(range(len(images)))
    right = []
    for small, large in (
        ("a small dark stain", "a large dark stain"),
        ("a short dark scratch", "a long dark scratch"),
        ("a small dark hole", "a large dark hole"),
        ("a small round dent", "a large round dent"),
    ):
        pair = [generator(images, seeds=seeds, prompts=[text] * count) for text in (small, large)]
        both = pair[0].accepted & pair[1].accepted
        less, more = (_extent(sample.mask)[both] for sample in pair)
        right += (less < more).tolist()
    print(f"size: {np.mean(right):.1%} of {len(right)} pairs go the right way")
    inside, total = 0, 0
    for row, column in itertools.product(("top", "bottom"), ("left", "right")):
        sample = generator(images, seeds=seeds, prompts=[f"a small dark stain at the {row} {column}"] * count)
        for mask in sample.mask[sample.accepted][:, 0]:
            centre = mask.nonzero().float().mean(0) / torch.tensor(mask.shape)
            wanted = torch.tensor([0 if row == "top" else 2, 0 if column == "left" else 2])
            inside, total = inside + int(((centre * 3).long() == wanted).all()), total + 1
    print(f"position: {inside} of {total} centres in the third that was asked for", flush=True)


def _extent(masks: torch.Tensor) -> torch.Tensor:
    """Return the longer side of each mask's bounding box."""
    sides = [torch.stack([mask[0].any(0).sum(), mask[0].any(1).sum()]).max() for mask in masks > 0]
    return torch.stack(sides)


def check_noun(generator: AutoregressiveGenerator, windows: torch.Tensor) -> None:
    """Print the change between nouns over that between seeds."""
    inside = disc(RADIUS)[0].expand(3, -1, -1) > 0
    nouns, seeds = [], []
    for n, window in enumerate(windows):
        one, two = (NOUNS[(n + step) % len(NOUNS)] for step in (0, 1 + n % (len(NOUNS) - 1)))
        first, other, again = (
            draw_disc(generator, window, f"a {noun}, high contrast", seed)
            for noun, seed in ((one, n), (two, n), (one, 10_000 + n))
        )
        nouns.append(float((first - other).abs()[inside].mean()))
        seeds.append(float((first - again).abs()[inside].mean()))
    print(
        f"noun: another noun changes {255 * np.mean(nouns):.1f} grey levels, another seed {255 * np.mean(seeds):.1f}; "
        f"{np.mean(nouns) / np.mean(seeds):.2f} times",
        flush=True,
    )


def check_visibility(generator: AutoregressiveGenerator, images: torch.Tensor) -> None:
    """Print the visibility of thin types, of edits over rules."""
    seeds = list(range(len(images)))
    options = {"strength": (1.0, 1.0), "size": (0.1, 0.25), "foreground": None, "max_attempts": 1}
    for family in THIN:
        rules = RuleBasedGenerator([family], **options)
        drawn = rules(images, seeds=seeds)
        edits = AutoregressiveGenerator(bundle=generator.bundle_path, sampling=generator.sampling, **options)
        prompts = [caption.rpartition(",")[0] for caption in drawn.caption]
        prompts = [prompt or f"a {family.replace('_', ' ')}" for prompt in prompts]
        made = edits(images, seeds=seeds, prompts=prompts)
        seen = [
            np.median([record.measured["visibility"] for record in sample.provenance if record.measured])
            for sample in (made, drawn)
        ]
        passed = [float(sample.accepted.float().mean()) for sample in (made, drawn)]
        print(
            f"visibility: {family} {seen[0]:.2f}, by rules {seen[1]:.2f}, {seen[0] / seen[1]:.2f} times; "
            f"passed {passed[0]:.0%}, by rules {passed[1]:.0%}",
            flush=True,
        )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normals", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--classifier_steps", type=int, default=400)
    parser.add_argument("--count", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = list(read_folder(options.normals, image_size=options.image_size, limit=80))
    half = len(images) // 2
    generator = AutoregressiveGenerator(bundle=options.bundle, foreground=None, strength=(1.0, 1.0))
    teacher = RuleBasedGenerator(PHYSICAL, size=(0.03, 0.3), strength=(0.8, 1.0), foreground=None)
    training = WindowSampler(images[:half], teacher, size=64, frame=256, seed=1)
    held = WindowSampler(images[half:], teacher, size=64, frame=256, seed=2)
    windows = held.draw_sources(0, options.count)
    chosen = torch.stack(images[half:])[torch.arange(options.count) % (len(images) - half)].float()
    check_context(generator.backend, windows)
    check_noun(generator, windows)
    check_visibility(generator, chosen)
    check_size_and_position(generator, chosen)
    check_type(generator, training, held, windows, options.classifier_steps)


if __name__ == "__main__":
    main()
