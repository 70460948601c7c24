"""Train two steps in two processes and write what each saw. Run by test_ddp.py, not by pytest."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback

from anomalib_synth.callbacks import QualityWeightingCallback, SynthesisCallback
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import RealNet
from tests.integration.models import QUIET, make_engine, make_folder, make_supersimplenet, normalising


class Recorder(Callback):
    """Writes a digest of each image the process trained on, and one of the parameters it ended with."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seen: dict[str, str] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        for path, image in zip(batch.image_path, batch.image.as_subclass(torch.Tensor), strict=True):
            self.seen[path] = hashlib.sha256(image.numpy().tobytes()).hexdigest()

    def on_train_end(self, trainer, pl_module) -> None:
        state = {name: value for name, value in pl_module.state_dict().items() if "selector" in name}
        values = [value.detach() for value in (*state.values(), *pl_module.parameters())]  # no batch statistics
        weights = torch.cat([value.flatten().double() for value in values])
        self.seen["model"] = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
        written = self.out / f"rank_{trainer.global_rank}.part"
        written.write_text(json.dumps(self.seen), encoding="utf-8")
        written.rename(written.with_suffix(".json"))  # whole as soon as it is there


def main() -> None:
    root, out, devices, name = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    callbacks = [SynthesisCallback(RuleBasedGenerator(["cutout", "scratch"]), probability=1.0), Recorder(out)]
    if name == "realnet":
        model = RealNet(feature_dims=(8, 8, 16), residual_dims=(8, 8), pre_processor=normalising(64), **QUIET)
        callbacks.append(QualityWeightingCallback())
    else:
        model = make_supersimplenet()
    strategy = {"strategy": "ddp_find_unused_parameters_true", "devices": devices} if devices > 1 else {}
    engine = make_engine(out, callbacks, limit_train_batches=1.0, limit_val_batches=0, **strategy)
    engine.fit(model, datamodule=make_folder(root))


if __name__ == "__main__":
    main()
