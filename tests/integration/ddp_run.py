"""Train two steps in two processes and write what each saw. Run by test_ddp.py, not by pytest."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.generators import RuleBasedGenerator
from tests.integration.models import make_engine, make_folder, make_supersimplenet


class Recorder(Callback):
    """Writes a digest of each image the process trained on."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seen: dict[str, str] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        for path, image in zip(batch.image_path, batch.image.as_subclass(torch.Tensor), strict=True):
            self.seen[path] = hashlib.sha256(image.numpy().tobytes()).hexdigest()

    def on_train_end(self, trainer, pl_module) -> None:
        (self.out / f"rank_{trainer.global_rank}.json").write_text(json.dumps(self.seen), encoding="utf-8")


def main() -> None:
    root, out, devices = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    callback = SynthesisCallback(RuleBasedGenerator(["cutout", "scratch"]), probability=1.0)
    strategy = {"strategy": "ddp_find_unused_parameters_true", "devices": devices} if devices > 1 else {}
    engine = make_engine(out, [callback, Recorder(out)], limit_train_batches=1.0, limit_val_batches=0, **strategy)
    engine.fit(make_supersimplenet(), datamodule=make_folder(root))


if __name__ == "__main__":
    main()
