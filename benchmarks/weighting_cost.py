"""What does QualityWeightingCallback add to a training step of SuperSimpleNet (batch 8, 128 x 128)?

    python benchmarks/weighting_cost.py --steps 60 --threads 1

Prints the time of a step with the callback as a ratio to one without it. The two take turns on the same model and the
same batches, and the ratio is the median over pairs, so that a machine whose speed drifts disturbs it little. A second
line has less noise: the time of what the callback changes (its hooks, and the loss forward and backward), with it and
without, as a share of the step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from anomalib.data import ImageBatch
from anomalib.models import Supersimplenet
from torch.nn import functional

from anomalib_synth import BACKBONE_NAME
from anomalib_synth.callbacks import QualityWeightingCallback, SynthesisCallback
from anomalib_synth.generators import RuleBasedGenerator

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH, SIZE = 8, 128


class Training:
    """SuperSimpleNet, and steps of it with and without the callback.

    Args:
        seed: Seed of images, weights and defects.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = Supersimplenet(backbone=BACKBONE_NAME, layers=["blocks.2", "blocks.4"], supervised=True).train()
        self.model.log = lambda *args, **kwargs: None
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-4)
        self.images = functional.interpolate(torch.rand(BATCH, 3, 8, 8), size=(SIZE, SIZE), mode="bilinear")
        self.synthesis = SynthesisCallback(RuleBasedGenerator().prepare(self.images), probability=0.8, seed=seed)
        self.weighting = QualityWeightingCallback()
        self.trainer = SimpleNamespace(global_rank=0, global_step=0, callbacks=[self.synthesis, self.weighting])
        self.losses = {False: self.model.loss}
        for callback in self.trainer.callbacks:
            callback.setup(self.trainer, self.model, "fit")
        self.weighting.on_train_start(self.trainer, self.model)
        self.losses[True] = self.model.loss

    def make_batch(self, step: int) -> ImageBatch:
        """Draw defects onto the images."""
        self.trainer.current_epoch = step
        batch = ImageBatch(
            image=self.images.clone(),
            gt_label=torch.zeros(BATCH, dtype=torch.bool),
            image_path=[f"{position}.png" for position in range(BATCH)],
        )
        self.synthesis.on_train_batch_start(self.trainer, self.model, batch, step)
        return batch

    def time_step(self, batch: ImageBatch, *, weighted: bool) -> float:
        """Return how long a training step takes."""

        def step() -> None:
            self.optimizer.zero_grad()
            self.model.training_step(batch)["loss"].backward()
            self.optimizer.step()

        return self._time(step, batch, weighted=weighted)

    def time_loss(self, batch: ImageBatch, outputs: list[torch.Tensor], *, weighted: bool) -> float:
        """Return how long the loss of given outputs takes, forward and backward."""
        return self._time(lambda: self.model.loss(*outputs).backward(), batch, weighted=weighted)

    def _time(self, call: Callable[[], None], batch: ImageBatch, *, weighted: bool) -> float:
        """Return how long a call takes, with the callback's hooks around it or without."""
        self.model.loss = self.losses[weighted]
        start = time.perf_counter()
        if weighted:
            self.weighting.on_train_batch_start(self.trainer, self.model, batch, 0)
        call()
        if weighted:
            self.weighting.on_train_batch_end(self.trainer, self.model, None, batch, 0)
        return time.perf_counter() - start


def time_pairs(call: Callable[..., float], rounds: int) -> tuple[list[float], list[float]]:
    """Return the times without and with the callback; they take turns, and so does which of them is first."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for weighted in (False, True):  # warm up
        call(0, weighted=weighted)
    for step in range(rounds):
        for weighted in (step % 2 == 0, step % 2 == 1):
            times[weighted].append(call(step, weighted=weighted))
    return times[False], times[True]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="pairs of steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    training = Training(args.seed)
    batches = [training.make_batch(step) for step in range(args.steps)]

    plain, weighted = time_pairs(lambda step, **which: training.time_step(batches[step], **which), args.steps)
    step_time = statistics.median(plain)
    ratios = [with_it / without for without, with_it in zip(plain, weighted, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"with the callback / without: {middle:.3f} (quartiles of {args.steps} pairs: {low:.3f}, {high:.3f}); "
        f"a step without takes {1000 * step_time:.0f} ms on {args.threads} thread(s)"
    )

    batch = batches[0]
    with torch.no_grad():
        score_map, score, *targets = training.model.model(batch.image, batch.gt_mask, batch.gt_label)
    outputs = [score_map.requires_grad_(), score.requires_grad_(), *targets]
    times = time_pairs(lambda _, **which: training.time_loss(batch, outputs, **which), 10 * args.steps)
    without, with_it = (statistics.median(own) for own in times)
    print(
        f"hooks and loss alone: {1000 * without:.2f} ms without, {1000 * with_it:.2f} ms with: "
        f"{(with_it - without) / step_time:+.2%} of a step"
    )


if __name__ == "__main__":
    main()
