"""Raw scores of a model, through the loop that `anomalib predict` runs, for images that are drawn meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional as F

from anomalib_synth.calibration.predict_loop import as_it_is, first_resize, run_predict_loop
from anomalib_synth.functional.field_of_view import cover
from anomalib_synth.host.memory import watch_memory
from anomalib_synth.host.thresholds import give_raw_scores
from anomalib_synth.images.batching import batch_by_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback

    from anomalib_synth.calibration.training_run import Inference


Role = Literal["choose", "measure", "synthetic", "real", "train"]


@dataclass(kw_only=True)
class Row:
    """One image that was scored.

    Args:
        role: ``"choose"``: normals that set the threshold; ``"measure"``: normals that it is measured on;
            ``"synthetic"`` and ``"real"``: defects; ``"train"``: images the model was trained on.
        path: File of the normal, or of the real defect.
        family: Family of a synthetic defect.
        strength: Its strength, None where the generator has none.
        visibility: Its mean change over the noise of normals, as the generator's checks measured it.
        area: Share of the image's pixels in its mask.
        visible: False for a synthetic defect that failed the generator's checks: it was not scored.
        in_view: False for a synthetic defect of which the model's own transform leaves nothing.
        score: Raw image score.
        peak: Largest value of the raw anomaly map, NaN without a map.
        inside: Largest value of the map within the mask, NaN without a map or a mask.
        nearest: Least distance of a patch to PatchCore's memory, NaN for other models.
        place: Where in the map the largest value is: share of the width and of the height, None without a map.
        group: Which normals it belongs to, ``""`` where nobody said.
    """

    role: Role
    path: str
    family: str = ""
    strength: float | None = None
    visibility: float = math.nan
    area: float = math.nan
    visible: bool = True
    in_view: bool = True
    score: float = math.nan
    peak: float = math.nan
    inside: float = math.nan
    nearest: float = math.nan
    place: tuple[float, float] | None = None
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An image to score: (3, H, W) in [0, 1], its mask (1, H, W) in {0, 1} or None, and where the score goes."""

    row: Row
    image: torch.Tensor
    mask: torch.Tensor | None = None


def score_items(
    model: AnomalibModule,
    checkpoint: Path,
    items: Iterable[Item],
    *,
    inference: Inference,
    batch_size: int,
    accelerator: str,
) -> None:
    """Score images, and write the scores into their rows.

    Args:
        model: The model.
        checkpoint: Its checkpoint, restored as `anomalib predict --ckpt_path` does.
        items: The images; drawn from while the loop runs, so they need not exist at once.
        inference: The tiler, callbacks and precision that the training run used.
        batch_size: Images scored at once.
        accelerator: Lightning's name of the device: ``"auto"``, ``"cpu"``, ``"gpu"``.

    Raises:
        ValueError: If the checkpoint does not fit the model, or the model gives no usable score.
    """
    from torch.utils.data import DataLoader

    pending: list[list[Item]] = []
    loader = DataLoader(_Batches(model, items, batch_size, pending), batch_size=None, collate_fn=as_it_is)
    with watch_memory(model, partial(_remember, pending)):
        run_predict_loop(
            model, checkpoint, loader, _make_collector(pending), inference=inference, accelerator=accelerator
        )


class _Batches(torch.utils.data.IterableDataset):
    """Groups consecutive images of one size into batches; a resize that the transform begins with is done here."""

    def __init__(self, model: AnomalibModule, items: Iterable[Item], batch_size: int, pending: list) -> None:
        self._model = model
        self._items = items
        self._batch_size = batch_size
        self._pending = pending

    def __iter__(self) -> Iterator[ImageBatch]:
        from anomalib_synth.data.normals import model_transform

        resize = first_resize(model_transform(self._model))  # of the checkpoint, which has been restored by now
        resized = ((item, resize(item.image) if resize else item.image) for item in self._items)
        for group in batch_by_size(resized, lambda pair: pair[1].shape, count=self._batch_size):
            yield self._collate(group)

    def _collate(self, group: list[tuple[Item, torch.Tensor]]) -> ImageBatch:
        from torchvision.tv_tensors import Image, Mask

        from anomalib_synth.data.items import SyntheticImageBatch

        self._pending.append([item for item, _ in group])
        size = (group[0][1].shape[-2], group[0][1].shape[-1])
        masks = [
            torch.zeros(size, dtype=torch.bool) if item.mask is None else cover(item.mask, size)[0] > 0
            for item, _ in group
        ]
        return SyntheticImageBatch(  # its masks are made smaller by any overlap, or a thin scratch vanishes
            image=Image(torch.stack([image for _, image in group])),
            gt_mask=Mask(torch.stack(masks)),
            image_path=[item.row.path for item, _ in group],
        )


def describe_order(model: AnomalibModule) -> str:
    """Return a warning if the model's transform does something before its resize, else ``""``."""
    from anomalib.data.transforms.utils import extract_transforms_by_type
    from torchvision.transforms.v2 import Resize

    from anomalib_synth.data.normals import model_transform

    transform = model_transform(model)
    if first_resize(transform) or not extract_transforms_by_type(transform, Resize):
        return ""
    return (
        "The model's transform does something before it resizes. A prediction from files keeps that order, and so did "
        "this; anomalib's datamodules resize first, so the training saw other images. Put Resize first."
    )


def _remember(pending: list[list[Item]], nearest: torch.Tensor) -> None:
    for item, distance in zip(pending[0], nearest.tolist(), strict=True):
        item.row.nearest = distance


def _make_collector(pending: list[list[Item]]) -> Callback:
    """Return the callback that takes raw scores out of the loop; Lightning is imported only now."""
    from lightning.pytorch import Callback

    class Collector(Callback):
        def on_predict_start(self, trainer: object, pl_module: AnomalibModule) -> None:
            give_raw_scores(pl_module)

        def on_predict_batch_end(
            self, trainer: object, pl_module: AnomalibModule, outputs: ImageBatch, batch: object, batch_idx: int
        ) -> None:
            _collect(type(pl_module).__name__, outputs, pending.pop(0))

    return Collector()


def _collect(name: str, outputs: ImageBatch, items: list[Item]) -> None:
    """Write the scores of a batch into the rows."""
    if outputs.pred_label is not None:
        msg = f"{name} labels images by itself, so it has no threshold to calibrate."
        raise ValueError(msg)
    scores = None if outputs.pred_score is None else outputs.pred_score.detach().float().flatten().cpu()
    if scores is None or len(scores) != len(items) or not bool(torch.isfinite(scores).all()):
        got = "none" if scores is None else f"{len(scores)} for {len(items)} images: {scores[:4].tolist()}"
        msg = f"{name} must give one finite score an image, got {got}. Train it longer, or calibrate another model."
        raise ValueError(msg)
    maps = None if outputs.anomaly_map is None else outputs.anomaly_map.detach().float().cpu()
    maps = None if maps is None else maps.reshape(len(items), *maps.shape[-2:])
    for n, item in enumerate(items):
        item.row.score = float(scores[n])
        item.row.in_view = item.mask is None or bool(outputs.gt_mask[n].any())
        if maps is None:
            continue
        item.row.peak = float(maps[n].max())
        down, right = divmod(int(maps[n].argmax()), maps.shape[-1])
        item.row.place = ((right + 0.5) / maps.shape[-1], (down + 0.5) / maps.shape[-2])
        if item.mask is not None:
            mask = F.adaptive_max_pool2d(outputs.gt_mask[n : n + 1].float().cpu(), maps.shape[-2:])[0] > 0
            item.row.inside = float(maps[n][mask].max()) if bool(mask.any()) else math.nan
