"""The memory of a detector: examples and their features, on disk."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torchvision.tv_tensors import Image

from anomalib_synth.defects import DEFECT
from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, KeptFeatures, digest_values
from anomalib_synth.detectors.discriminative_padim.targets import make_targets
from anomalib_synth.detectors.discriminative_padim.training_features import TrainingFeatures
from anomalib_synth.functional.field_of_view import CoverageMask
from anomalib_synth.learning.examples import Example, pack_targets
from anomalib_synth.store.files import append_lines, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from anomalib_synth.detectors.discriminative_padim.lightning_model import DiscriminativePadim
    from anomalib_synth.learning.examples import Role

_FORMAT = 1
_RESIDUALS = 1024 * 2**20  # bytes of residuals in memory


class ExampleMemory:
    """Examples of a detector, with features that were computed once.

    Args:
        folder: Folder of the memory; the memory of another detector there is deleted.
        module: The detector, trained.

    Attributes:
        features: Gives the features of an example as the heads see them.
    """

    def __init__(self, folder: Path, module: DiscriminativePadim) -> None:
        self._folder = folder
        self._module = module
        self._model = module.model
        self._grids = [branch.grid for branch in module.model.branches]
        self._prepare()
        self.features = TrainingFeatures(
            module.model, FeatureCache(memory=_RESIDUALS, disk=0, kept=KeptFeatures(folder))
        )
        self._examples: dict[Role, dict[bytes, Example]] = defaultdict(dict)
        self._read_examples()

    def _read_examples(self) -> None:
        """Read the examples whose features are there; damaged lines are dropped, so that they are made again."""
        lines = self._lines.read_bytes().split(b"\n")[:-1] if self._lines.exists() else []
        kept = []
        for line in lines:
            try:
                example = Example.from_line(line.decode(), self._grids)
            except ValueError:
                continue
            if self.features.has_raw(example.key):
                self._examples[example.role][example.key] = example
                kept.append(line + b"\n")
        if len(kept) < len(lines):
            (self._folder / "complete").unlink(missing_ok=True)
            write_whole(self._lines, b"".join(kept))

    @property
    def _lines(self) -> Path:
        return self._folder / "examples.jsonl"

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Height and width of the grid of each scale."""
        return self._grids

    @property
    def is_complete(self) -> bool:
        """Whether everything that belongs to the memory was collected."""
        return (self._folder / "complete").exists()

    def mark_complete(self) -> None:
        """Note on disk that everything was collected."""
        write_whole(self._folder / "complete", b"")

    def of(self, *roles: Role) -> list[Example]:
        """Return the examples of some roles."""
        return [example for role in roles for example in self._examples[role].values()]

    def normals(self) -> list[bytes]:
        """Return the digests of the training normals."""
        return list(self._examples["normal"])

    @torch.no_grad()
    def add(
        self,
        role: Role,
        name: str,
        image: torch.Tensor,
        *,
        marks: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        certain: bool = True,
        drawn_on: str = "",
        keep: bool = True,
    ) -> Example:
        """Add an image as the datamodule would hand it out, and return its example.

        A known example stays as it was, except a ``defect`` whose marks have changed.

        Args:
            role: Role of the example, see :class:`.examples.Example`.
            name: Name of the example in tables.
            image: (3, H, W) in [0, 1].
            marks: (H, W) uint8, see :mod:`anomalib_synth.defects`; None for a good image.
            source: (3, H, W), the training normal it was drawn on.
            certain: Whether a mask says where the defect is.
            drawn_on: File of the held-out image that a probe was drawn on.
            keep: Whether to keep the example; with False only its features are kept.
        """
        seen, seen_marks = self.look(image, marks)
        key = digest_values(seen)
        self.features.raw(seen, key)
        targets: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
        if seen_marks is not None:
            mask = (seen_marks == DEFECT)[None]
            targets = pack_targets([make_targets(mask, seen_marks[None], grid) for grid in self._grids])
        behind = None if source is None else digest_values(self.look(source)[0])
        example = Example(
            role=role, name=name, key=key, behind=behind, targets=targets, certain=certain, drawn_on=drawn_on
        )  # fmt: skip
        known = self._examples[role].get(key)
        if known is not None and keep and (role != "defect" or known.to_line() == example.to_line()):
            return known
        if keep:
            append_lines(self._lines, example.to_line())
            self._examples[role][key] = example
        return example

    def forget(self, role: Role, keys: set[bytes]) -> None:
        """Take examples out of this object; on disk they stay until the memory is made again."""
        for key in keys:
            self._examples[role].pop(key, None)

    def look(self, image: torch.Tensor, marks: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return an image (3, h, w) and its marks (h, w) as the model sees them, after its own transform."""
        transform = None if self._module.pre_processor is None else self._module.pre_processor.transform
        device = self._model.size.device
        image = Image(image[None].to(device))
        shown = None if marks is None else CoverageMask(marks[None].to(device))
        if transform is not None and shown is None:
            image = transform(image)
        elif transform is not None:
            image, shown = transform(image, shown)
        plain = image.as_subclass(torch.Tensor)[0]
        return plain, None if shown is None else shown.as_subclass(torch.Tensor)[0]

    def _prepare(self) -> None:
        """Make the folder; throw away what another detector, or another version, left in it."""
        about = {
            "format": _FORMAT,
            "normals": int(self._model.fingerprint),
            "size": self._model.size.tolist(),
            "grids": [list(grid) for grid in self._grids],
            "channels": self._model.features.channels,
        }
        path = self._folder / "memory.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known != about and self._folder.exists():
            shutil.rmtree(self._folder)
        write_whole(path, json.dumps(about).encode())
