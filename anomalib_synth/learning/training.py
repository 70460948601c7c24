"""Trains the heads from kept features: no image is read and no backbone runs, so a step is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.discriminative_padim.losses import head_losses
from anomalib_synth.detectors.discriminative_padim.schedule import OneCycle
from anomalib_synth.detectors.discriminative_padim.training import mirrored_axes
from anomalib_synth.learning.examples import stack_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anomalib_synth.detectors.discriminative_padim.reference import ReferenceNormals
    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel
    from anomalib_synth.learning.example_memory import ExampleMemory
    from anomalib_synth.learning.examples import Example

_UNCERTAIN = 0.25  # weight of a defect without a mask


@dataclass(frozen=True, kw_only=True)
class HeadTrainingSettings:
    """How the heads are trained.

    Args:
        steps: Number of steps.
        learning_rate: Largest learning rate of AdamW, in one cycle.
        batch: Images per step, half of them good.
        share: Share of real defects in the defective half, in [0, 1], where there are real defects with masks. A defect
            without a mask counts a quarter, as what it teaches is right less often.
        pasted: Share of the real defects that are pasted on good images, where there are such examples, in [0, 1).
        seed: Seed of the order.
        looks_from: Share of the steps after which defects without a mask are looked for; 0 for heads that know defects.
    """

    steps: int
    learning_rate: float = 0.002
    batch: int = 8
    share: float = 0.75
    pasted: float = 0.5
    seed: int = 0
    looks_from: float = 0.0


def train_heads(
    model: DiscriminativePadimModel,
    memory: ExampleMemory,
    reference: ReferenceNormals,
    settings: HeadTrainingSettings,
    *,
    defects: Sequence[Example] = (),
    false_alarms: Sequence[Example] = (),
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Train the heads further, from the features in the memory, and put the score on its new scale.

    Good images are training normals, of which up to every fourth is a false alarm. Defective images are drawn defects
    and a share of real ones. Normals that were held out of the heads' training stay out, and so do defects drawn on
    them.

    Args:
        model: The network.
        memory: Normals and drawn defects, with their features.
        reference: The normals that the score is measured by.
        settings: How the heads are trained.
        defects: Real defects.
        false_alarms: Good images that alarmed.
        advance: Called after each step.
    """
    keys = memory.normals()
    held_out = {key for key, held in zip(keys, reference.held_out.tolist(), strict=True) if held}
    good = [example for example in memory.of("normal") if example.key not in held_out]
    drawn = [example for example in memory.of("drawn") if example.behind not in held_out]
    generator = torch.Generator().manual_seed(settings.seed)
    heads = [p for branch in model.branches for p in branch.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(heads, lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, OneCycle(settings.steps))
    half = settings.batch // 2
    weights, certain = weigh(defects, settings.pasted)
    real = settings.share * half * certain if defects and drawn else half if defects else 0.0
    alarms = min(half / 4, len(false_alarms))
    plan: list[tuple[list[Example], list[int]]] = []
    for _ in range(settings.steps):
        counts = [_round(each, generator) for each in (real, alarms)]
        rows = [
            *_draw(good, half - counts[1], generator),
            *_draw(false_alarms, counts[1], generator),
            *_draw(drawn, half - counts[0], generator),
            *_draw(defects, counts[0], generator, weights),
        ]
        plan.append((rows, mirrored_axes(int(torch.randint(2**31, (1,), generator=generator)))))
    model.branches.train()
    for step, (rows, axes) in enumerate(plan):
        ahead = (row.to_request() for later, _ in plan[step + 1 :] for row in later)
        views = memory.features.views([row.to_request() for row in rows], count=len(keys), ahead=ahead)
        targets = [each.to(model.size.device) for each in stack_targets(rows, memory.grids)]
        looks = step >= settings.looks_from * settings.steps
        loss = head_losses(model.branches, views, targets, axes=axes, looks=looks).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        advance()
    model.branches.eval()
    masks = sum(example.certain and example.behind is None for example in defects)
    reference.set_score(with_heads=True, real_masks=masks)


def weigh(defects: Sequence[Example], pasted: float) -> tuple[torch.Tensor, float]:
    """Return the sampling weight of each real defect, up to a factor, and the share of their rows that they fill.

    Args:
        defects: The real defects.
        pasted: Share of them that are pasted on good images, in [0, 1).
    """
    on_good = torch.tensor([example.behind is not None for example in defects], dtype=torch.bool)
    weights = torch.tensor([1.0 if example.certain else _UNCERTAIN for example in defects])
    photographs = weights[~on_good]
    if bool(on_good.any()) and len(photographs):
        with_masks = float((photographs == 1).sum())
        weights[on_good] = with_masks * pasted / (1 - pasted) / float(on_good.sum())
    return weights, float(photographs.mean()) if len(photographs) else 1.0


def _draw(
    examples: Sequence[Example], count: int, generator: torch.Generator, weights: torch.Tensor | None = None
) -> list[Example]:
    if not examples or not count:
        return []
    weights = torch.ones(len(examples)) if weights is None else weights
    return [examples[place] for place in torch.multinomial(weights, count, True, generator=generator).tolist()]


def _round(number: float, generator: torch.Generator) -> int:
    """Round up as often as the fraction says, so that the mean is the number."""
    whole = int(number)
    return whole + int(float(torch.rand(1, generator=generator)) < number - whole)
