"""How fast are the rule-based families, against anomalib's PerlinAnomalyGenerator in the same run?

    python benchmarks/speed.py --sizes 256 1024 --threads 1

Prints images per second of every family as a ratio to the peer's, and their geometric mean. The images are rendered
demo parts; the generator is prepared with them. Both sides draw a defect on every image. The two take turns, and the
ratio is that of the medians, so that a machine whose speed drifts disturbs it little.

    python benchmarks/speed.py --callback

Prints what SynthesisCallback adds to SuperSimpleNet's training step (batch 16, 256 x 256), as a share of the step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from anomalib.data import ImageBatch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from torch.nn import functional as F

from anomalib_synth import BACKBONE_NAME
from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import RuleBasedGenerator


def load_images(count: int, size: int) -> torch.Tensor:
    """Render demo parts and enlarge them to the size."""
    with tempfile.TemporaryDirectory() as root:
        DemoParts(
            root=root, category="brushed_metal", num_train=count, num_test_good=1, num_test_defect=1
        ).prepare_data()
        images = torch.stack(list(read_folder(Path(root) / "brushed_metal" / "train", image_size=256, limit=count)))
    return F.interpolate(images, size=(size, size), mode="bilinear").clamp(0, 1)


def seconds(call, *arguments) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def compare_families(size: int, batch: int, rounds: int) -> None:
    """Print one line a family."""
    images = load_images(batch, size)
    peer = PerlinAnomalyGenerator(probability=1.0)
    everything = RuleBasedGenerator().prepare(images)
    peer(images[:2])
    print(f"\n{batch} images of {size} x {size}, {torch.get_num_threads()} thread(s)")
    ratios = []
    for name in everything.families:
        generator = everything.only(name)
        generator(images, seeds=range(batch))
        ours, theirs = [], []
        for k in range(rounds):
            ours.append(seconds(lambda k=k, g=generator: g(images, seeds=range(k * batch, (k + 1) * batch))))
            theirs.append(seconds(peer, images[: max(2, batch // 4)]) * batch / max(2, batch // 4))
        ratios.append(statistics.median(theirs) / statistics.median(ours))
        print(f"{name:16s} {ratios[-1]:6.1f} x", flush=True)
    print(f"geometric mean   {statistics.geometric_mean(ratios):6.1f} x   slowest {min(ratios):.1f} x")


def measure_callback(rounds: int) -> None:
    """Print the callback's share of SuperSimpleNet's training step."""
    from anomalib.models import Supersimplenet

    images = load_images(16, 256)
    model = Supersimplenet(backbone=BACKBONE_NAME, layers=["blocks.2", "blocks.4"], supervised=True).train()
    model.log = lambda *args, **kwargs: None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    callback = SynthesisCallback(RuleBasedGenerator().prepare(images))

    class Run:
        current_epoch, global_rank = 0, 0

    callback.setup(None, model, "fit")
    steps, draws = [], []
    for k in range(rounds + 1):
        batch = ImageBatch(
            image=images.clone(),
            gt_label=torch.zeros(16, dtype=torch.bool),
            image_path=[f"{k}-{position}" for position in range(16)],
        )
        Run.current_epoch = k
        draws.append(seconds(callback.on_train_batch_start, Run, model, batch, k))
        batch.image, batch.gt_mask = model.pre_processor.transform(batch.image, batch.gt_mask)

        def step(batch=batch) -> None:
            optimizer.zero_grad()
            model.training_step(batch)["loss"].backward()
            optimizer.step()

        steps.append(seconds(step))
    draw, step = statistics.median(draws[1:]), statistics.median(steps[1:])
    print(f"the callback adds {draw / step:.1%} to SuperSimpleNet's training step (batch 16, 256 x 256)")


def main() -> None:
    """Run the chosen measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--callback", action="store_true", help="measure the callback instead of the families")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.callback:
        measure_callback(args.rounds)
        return
    for size in args.sizes:
        compare_families(size, args.batch if size <= 256 else max(2, args.batch // 8), args.rounds)


if __name__ == "__main__":
    main()
