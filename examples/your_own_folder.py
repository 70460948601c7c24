"""Train DiscriminativePadim on a folder of good images with synthetic defects, from Python.

    python examples/your_own_folder.py --root FOLDER --normal-dir good --epochs 30

The threshold comes from a synthetic validation set, so not one real defect is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import DiscriminativePadim


def main() -> None:
    """Train, and test on synthetic defects that were held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--normal-dir", default="good")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()

    datamodule = SyntheticDataModule(
        base=Folder(
            name="parts", root=args.root, normal_dir=args.normal_dir, train_batch_size=8, num_workers=0, seed=0
        ),
        generator=RuleBasedGenerator(),
        splits=["val", "test"],
        root=args.results / "synthetic",
    )
    size = (args.image_size, args.image_size)
    model = DiscriminativePadim(
        pre_processor=PreProcessor(Compose([Resize(size, antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))
    )
    engine = Engine(
        callbacks=[SynthesisCallback(RuleBasedGenerator())],
        max_epochs=args.epochs,
        check_val_every_n_epoch=args.epochs,
        default_root_dir=args.results,
        logger=False,
    )
    engine.fit(model, datamodule=datamodule)
    print(engine.test(model, datamodule=datamodule))


if __name__ == "__main__":
    main()
