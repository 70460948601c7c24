"""Train PatchCore on good images, and set its threshold for a false-alarm rate without a real defect.

    python examples/calibrate_patchcore.py --root parts --train good --held-out held_out --out calibration

PatchCore never trains on defects, so synthetic ones cannot change it: they say what it finds. `calibration/recall.png`
shows the share found of each family at each strength, and `calibration/calibrated.ckpt` labels by the new threshold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth import BACKBONE_NAME
from anomalib_synth.commands.calibrate import calibrate
from anomalib_synth.generators import RuleBasedGenerator


def main() -> None:
    """Fill PatchCore's memory, then calibrate it on good images that it has not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--train", default="good", help="folder of good images in the root, to train on")
    parser.add_argument("--held-out", default="held_out", help="folder of other good images in the root")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--false-alarm-rate", type=float, default=0.05)
    parser.add_argument("--min-recall", type=float, default=0.0, help="fail below this share of the strongest defects")
    parser.add_argument("--families", nargs="+", default=["scratch", "dent", "stain"])
    parser.add_argument("--out", type=Path, default=Path("calibration"))
    args = parser.parse_args()

    size = (args.image_size, args.image_size)
    model = Patchcore(
        backbone=BACKBONE_NAME,
        layers=["blocks.2", "blocks.4"],
        coreset_sampling_ratio=0.01,
        pre_processor=PreProcessor(Compose([Resize(size, antialias=True), Normalize([0.5] * 3, [0.5] * 3)])),
    )
    data = Folder(
        name="parts", root=args.root, normal_dir=args.train, num_workers=0, seed=0,
        val_split_mode="from_train", test_split_mode="none",
    )  # fmt: skip
    engine = Engine(default_root_dir=args.out / "training", logger=False)
    engine.fit(model, datamodule=data)
    calibrate(
        Path(engine.best_model_path or engine.trainer.checkpoint_callback.last_model_path),
        args.root / args.held_out,
        out=args.out / "calibration",
        model="anomalib.models.Patchcore",
        train_normals=args.root / args.train,
        generator=RuleBasedGenerator(args.families),
        false_alarm_rate=args.false_alarm_rate,
        min_recall=args.min_recall,
    )


if __name__ == "__main__":
    main()
