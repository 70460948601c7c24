"""What does TwoStageTrainingCallback add to training? The time spent in its hooks, as a share of a real run.

Trains RealNet on DemoParts; times the hook of every batch, and the switch (fresh optimisers, another generator) apart.

    python benchmarks/two_stage_cost.py --steps 40
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine

from anomalib_synth.callbacks import SynthesisCallback, TwoStageTrainingCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import RealNet

warnings.filterwarnings("ignore")


class Timed(TwoStageTrainingCallback):
    """The callback, with a clock on its hooks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.switches = self.batches = 0.0

    def _start_stage_two(self, *args: Any) -> None:
        start = time.perf_counter()
        super()._start_stage_two(*args)
        self.switches += time.perf_counter() - start

    def on_train_batch_end(self, *args: Any) -> None:
        """Time the hook of every batch."""
        start, before = time.perf_counter(), self.switches
        super().on_train_batch_end(*args)
        self.batches += time.perf_counter() - start - (self.switches - before)


def main() -> None:
    """Train, and print what the hooks took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    callback = Timed(RuleBasedGenerator(["scratch", "dent"]))
    with tempfile.TemporaryDirectory() as folder:
        data = DemoParts(
            root=Path(folder) / "demo", category="printed_cap", num_train=40, num_test_good=2, num_test_defect=2,
            train_batch_size=4, num_workers=0, val_split_mode="from_train", seed=0,
        )  # fmt: skip
        engine = Engine(
            callbacks=[SynthesisCallback(RuleBasedGenerator(), grid_every_n_epochs=0), callback], max_epochs=-1,
            max_steps=args.steps, accelerator="cpu", logger=False, enable_progress_bar=False, limit_val_batches=0,
            default_root_dir=folder,
        )  # fmt: skip
        start = time.perf_counter()
        engine.fit(RealNet(evaluator=False, visualizer=False), datamodule=data)
        seconds = time.perf_counter() - start
    share, each = callback.batches / seconds, 1e6 * callback.batches / args.steps
    print(f"hooks: {each:.1f} us a batch, {share:.5%} of the run ({seconds:.0f} s)")
    print(f"the switch: {1000 * callback.switches:.1f} ms once, {callback.switches / seconds:.3%} of the run")


if __name__ == "__main__":
    main()
