"""Runs of `anomalib` with the configurations of this package, kept short."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"


SHORT = {
    "max_epochs": 1,
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "enable_progress_bar": "false",
    "logger": "false",
    "accelerator": "cpu",
    "check_val_every_n_epoch": 1,
}


BASE = """
model:
  class_path: anomalib.models.Glass
  init_args:
    input_shape: [64, 64]
    backbone: efficientnet_lite0_bundled
    layers: [blocks.2, blocks.4]
    pretrain_embed_dim: 16
    target_embed_dim: 16
    discriminator_hidden: 16
    mining: false
    evaluator: false
    visualizer: false
    pre_processor:
      class_path: anomalib.pre_processing.PreProcessor
      init_args:
        transform:
          class_path: torchvision.transforms.v2.Compose
          init_args:
            transforms:
              - class_path: torchvision.transforms.v2.Resize
                init_args: {{size: [64, 64]}}
              - class_path: torchvision.transforms.v2.Normalize
                init_args: {{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}
data:
  class_path: anomalib.data.Folder
  init_args:
    name: part
    root: {root}
    normal_dir: train/good
    train_batch_size: 2
    num_workers: 0
    val_split_mode: from_train
    test_split_mode: none
    seed: 0
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.LearningRateMonitor
      init_args: {{logging_interval: step}}
"""


def run_cli(*arguments: str) -> None:
    """Run ``anomalib`` in this process, so that tests can put stubs where weights would be downloaded."""
    from anomalib.cli.cli import AnomalibCLI

    AnomalibCLI(args=list(arguments))


def short(**extra: object) -> list[str]:
    """Arguments that keep a run to one step."""
    return [f"--trainer.{name}={value}" for name, value in {**SHORT, **extra}.items()]
