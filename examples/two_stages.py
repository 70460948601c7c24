"""Train RealNet on hand-made defects first, and fine-tune it on edits from words.

    python examples/two_stages.py --root parts --normal-dir good --steps 400

The generator of the second stage is any: `AutoregressiveGenerator(bundle=...)` with a bundle of `anomalib-synth fit`,
`StoredGenerator` with samples that were generated and reviewed, `RealDefectGenerator` with the few defects you have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.callbacks import SynthesisCallback, TwoStageTrainingCallback
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.models import RealNet


def main() -> None:
    """Train in two stages and keep the last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--normal-dir", default="good")
    parser.add_argument("--bundle", type=Path, help="folder of `anomalib-synth fit`; by default the package's own")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()

    data = Folder(
        name="parts", root=args.root, normal_dir=args.normal_dir, train_batch_size=8, num_workers=0, seed=0,
        val_split_mode="from_train", test_split_mode="none",
    )  # fmt: skip
    size = (args.image_size, args.image_size)
    model = RealNet(
        pre_processor=PreProcessor(Compose([Resize(size, antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))
    )
    hand_made = ["noise", "cutpaste", "nsa", "perlin_texture", "fractal", "destseg", "memseg", "realnet"]
    engine = Engine(
        callbacks=[
            SynthesisCallback(RuleBasedGenerator(hand_made)),
            TwoStageTrainingCallback(AutoregressiveGenerator(bundle=args.bundle)),
        ],
        max_steps=args.steps,
        max_epochs=-1,
        default_root_dir=args.results,
        logger=False,
    )
    engine.fit(model, datamodule=data)
    print(f"Trained for {engine.trainer.global_step} steps; checkpoints are under {args.results}.")


if __name__ == "__main__":
    main()
