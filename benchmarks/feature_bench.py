"""A category on which heads are trained again and again: the detector without heads, and the features of its images.

The Gaussians are fitted once, features are computed once and kept in a folder, so that a training of the heads costs
seconds. Used by the benchmarks that compare what the heads are trained with.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import seed_everything
from real_images import make_datamodule
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.calibration.statistics import conformal_threshold, least_count
from anomalib_synth.comparison.trial_metrics import ModelOutputs, image_auroc, pixel_ap
from anomalib_synth.detectors.discriminative_padim.reference import ReferenceNormals
from anomalib_synth.functional.field_of_view import cover
from anomalib_synth.images import decode_mask
from anomalib_synth.learning.collecting import TrainingReader
from anomalib_synth.learning.example_memory import ExampleMemory
from anomalib_synth.models import DiscriminativePadim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.learning.examples import Example

RATE = 0.1  # of false alarms, which a tenth of the good training images set
for name in ("anomalib", "lightning", "lightning.pytorch", "anomalib_synth"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class FeatureBench:
    """One category: its detector without heads, and the features of its images.

    Args:
        data: Folder with one folder per category.
        category: Name of the category.
        work: Folder in which features are kept.
        size: Side in pixels of the images, on which defects are drawn.
        scales: Scales of the detector.
        most_normals: Largest number of good images to train on; None for all.

    Attributes:
        folder: Where the features are kept.
        module: The detector, its heads as they are initialised.
        memory: Features of the training normals, and what a benchmark adds.
        normals: Files of the good images that it is trained on.
        good: Good images that were held out.
        test: The test images, ``tested`` their files, ``labels`` whether they have a defect.
    """

    def __init__(
        self,
        data: Path,
        category: str,
        work: Path,
        *,
        size: int,
        scales: Sequence[int],
        most_normals: int | None = None,
    ) -> None:
        self.root, self.folder, self.size = data / category, work / category, size
        transform = Compose([Resize((size, size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)])
        parts = {"evaluator": False, "visualizer": False, "post_processor": False}
        seed_everything(0, verbose=False)
        self.module = DiscriminativePadim(scales=scales, pre_processor=PreProcessor(transform), **parts)
        datamodule = make_datamodule(data, category, batch_size=8)
        datamodule.prepare_data()
        datamodule.setup()
        datamodule.train_data.samples = datamodule.train_data.samples.iloc[:most_normals].reset_index(drop=True)
        with tempfile.TemporaryDirectory() as folder:
            engine = Engine(
                default_root_dir=folder, logger=False, accelerator="cpu", enable_progress_bar=False, max_epochs=1,
                enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0,
            )  # fmt: skip
            datamodule.setup = lambda stage=None: None  # it would read the images anew
            engine.fit(self.module, datamodule=datamodule)
        self.module.eval()
        self.memory = ExampleMemory(self.folder, self.module)
        self.read = TrainingReader(self.module)
        samples = {split: getattr(datamodule, f"{split}_data").samples for split in ("train", "val", "test")}
        self.normals = [Path(path) for path in samples["train"].image_path]
        for path in self.normals:
            self.memory.add("normal", path.name, self.read(path))
        self.good = [self.memory.add("good", path, self.read(Path(path))) for path in samples["val"].image_path]
        self.tested = [Path(path) for path in samples["test"].image_path]
        self.labels = np.array(samples["test"].label_index) == 1
        self.test = [self.memory.add("probe", str(path), self.read(path)) for path in self.tested]
        self._state = {name: value.clone() for name, value in self.module.state_dict().items()}

    @cached_property
    def reference(self) -> ReferenceNormals:
        """The normals that the score is measured by."""
        return ReferenceNormals(self.module.model, self.memory.features, self.memory.normals())

    @cached_property
    def masks(self) -> torch.Tensor | None:
        """(n, size, size) bool of the test images, as the model sees them; None for a category without masks."""
        if not (self.root / "ground_truth").is_dir():
            return None
        return torch.stack([cover(self.read_mask(path), (self.size, self.size)) for path in self.tested])

    def read_mask(self, path: Path) -> torch.Tensor:
        """Return the mask (H, W) of a test image; for a good one it is (1, 1) and empty."""
        file = self.root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        return torch.from_numpy(decode_mask(file, "data")) if file.exists() else torch.zeros(1, 1, dtype=torch.bool)

    def reset(self, seed: int) -> None:
        """Forget what the heads learned, and initialise them by a seed."""
        self.module.load_state_dict(self._state)
        torch.manual_seed(seed)
        for branch in self.module.model.branches:
            for head in (branch.feature_head, branch.residual_head):
                for layer in head:
                    if hasattr(layer, "reset_parameters"):
                        layer.reset_parameters()

    def measure(self, keep: Sequence[int] | None = None) -> dict[str, Any]:
        """Return the metrics on the test images, or on some of them, and the test images that alarm as ``above``."""
        places = list(range(len(self.test))) if keep is None else list(keep)
        scores, maps = self._predict([self.test[place] for place in places])
        labels = torch.from_numpy(self.labels[places])
        masks = None if self.masks is None else self.masks[places]
        outputs = ModelOutputs(scores=scores.tolist(), labels=labels.tolist(), maps=maps, masks=masks)
        row: dict[str, Any] = {"image_auroc": image_auroc(outputs), "pixel_ap": pixel_ap(outputs)}
        good = self._predict(self.good)[0]
        if len(good) >= least_count(RATE):
            above = scores > conformal_threshold(good.tolist(), RATE)
            row |= {"recall": float(above[labels].float().mean()), "false_alarms": float(above[~labels].float().mean())}
            row["above"] = above
        return row

    @torch.no_grad()
    def _predict(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        scores, maps = [], []
        for start in range(0, len(examples), 8):
            requests = [example.to_request() for example in examples[start : start + 8]]
            views = self.memory.features.views(requests, count=len(self.memory.normals()))
            found = self.module.model.predict_from([tuple(view) for view in views])
            scores.append(found.pred_score)
            maps.append(found.anomaly_map[:, 0])
        return torch.cat(scores), torch.cat(maps)
