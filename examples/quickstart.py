"""The quickstart from Python: DiscriminativePadim on rendered parts with synthetic defects, tested on others.

python examples/quickstart.py --epochs 60
"""

from __future__ import annotations

import argparse
from pathlib import Path

from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.data import DemoParts, SyntheticDataModule
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import DiscriminativePadim


def main() -> None:
    """Train with a threshold from held-out synthetic defects, and print anomalib's test table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="woven_fabric")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=64, help="good images to train on")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()

    parts = DemoParts(
        root=args.results / "demo", category=args.category, image_size=args.image_size, num_train=args.images,
        train_batch_size=8,
    )  # fmt: skip
    data = SyntheticDataModule(
        base=parts, generator=RuleBasedGenerator(), splits=["val"], root=args.results / "synthetic"
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
    engine.fit(model, datamodule=data)
    print(engine.test(model, datamodule=data))


if __name__ == "__main__":
    main()
