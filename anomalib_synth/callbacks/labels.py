"""Labels, masks and quality of training batches, as the model sees them after its own transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torchvision.tv_tensors import Image

from anomalib_synth.defects import DEFECT
from anomalib_synth.functional.field_of_view import CoverageMask, in_view, see_marks
from anomalib_synth.host.batches import set_unchecked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anomalib.data import ImageBatch

    from anomalib_synth.sample import AnomalySample


def write_labels(batch: ImageBatch, sample: AnomalySample, pre_process: Callable | None) -> None:
    """Write a sample into a batch: ``image``, ``source``, ``gt_mask``, ``gt_label``, ``quality``, ``synthetic``.

    Rows that already have a real defect keep their image, mask and label. The model's pre-processor will transform
    ``image`` and ``gt_mask``; it does not know ``source``, which is therefore transformed here. If that transform
    leaves nothing of a defect, as a crop can, the image is labelled normal.

    Args:
        batch: The batch, changed in place.
        sample: One row for each image of the batch; rows that are not accepted change nothing.
        pre_process: The transform of the model's pre-processor, or None.

    Raises:
        ValueError: If a real anomalous image comes without a mask.
    """
    real = torch.zeros(len(sample), dtype=torch.bool, device=sample.mask.device)
    if batch.gt_label is not None:
        real = batch.gt_label.to(real.device).bool()
    if batch.gt_mask is None and bool(real.any()):
        msg = (
            "A training batch holds real anomalous images without masks, so their `gt_mask` cannot be set. Give the "
            "datamodule a mask_dir, or train on normal images only."
        )
        raise ValueError(msg)
    image = torch.where(real.view(-1, 1, 1, 1), batch.image.as_subclass(torch.Tensor), sample.image)
    mask = sample.mask[:, 0] > 0
    if batch.gt_mask is not None:
        mask = torch.where(real.view(-1, 1, 1), batch.gt_mask.as_subclass(torch.Tensor) > 0, mask)
    seen = _follow_mask(mask, real, pre_process)
    source = _transform(pre_process, sample.source)
    if bool(real.any()):
        own = getattr(batch, "source", None)  # already pre-processed by SyntheticDataModule
        own = _transform(pre_process, batch.image) if own is None else own
        source = torch.where(real.view(-1, 1, 1, 1), own, source)
    batch.source = Image(source)
    known = getattr(batch, "quality", None)
    quality = torch.ones_like(sample.quality) if known is None else known
    known = getattr(batch, "synthetic", None)
    synthetic = torch.zeros_like(real) if known is None else known
    batch.image = Image(image)
    _set_mask(batch, mask)
    drawn = sample.accepted & ~real
    batch.gt_label = seen & (real | drawn)
    batch.quality = torch.where(real, quality, torch.where(seen, sample.quality, 1.0))
    batch.synthetic = torch.where(real, synthetic, drawn) & seen


class RealRow(NamedTuple):
    """A real defect that replaces a row of a batch.

    Args:
        row: Index of the row.
        image: (3, H, W) in [0, 1], of the batch's size.
        source: (3, H, W) in [0, 1], the normal that the defect was pasted on; None for a photograph of the defect.
        marks: (H, W) uint8, the marks of the defect; see :mod:`anomalib_synth.defects`.
        path: File of the image.
    """

    row: int
    image: torch.Tensor
    source: torch.Tensor | None
    marks: torch.Tensor
    path: str


def write_real_rows(batch: ImageBatch, rows: Sequence[RealRow], pre_process: Callable | None) -> None:
    """Write real defects into a batch: the fields of :func:`write_labels`, and ``marks`` (B, H, W) uint8.

    ``gt_mask`` holds only pixels that are certainly defective. ``marks`` are transformed as the model will see them,
    and are 0 in all other rows. A defect of which the transform leaves nothing does not replace its row.
    :func:`write_labels` may be called before or after.

    Args:
        batch: The batch, changed in place.
        rows: The defects.
        pre_process: The transform of the model's pre-processor, or None.
    """
    image = batch.image.as_subclass(torch.Tensor)
    no = torch.zeros(len(image), dtype=torch.bool, device=image.device)
    marks = torch.zeros(len(image), *image.shape[-2:], dtype=torch.uint8, device=image.device)
    for each in rows:
        marks[each.row] = each.marks
    seen = see_marks(marks, pre_process)
    rows = [each for each in rows if bool(seen[each.row].any())]
    places = torch.tensor([each.row for each in rows], dtype=torch.long, device=image.device)
    known = {name: getattr(batch, name, None) for name in ("source", "quality", "synthetic")}
    source = _transform(pre_process, batch.image) if known["source"] is None else known["source"]
    quality = torch.ones(len(image), device=image.device) if known["quality"] is None else known["quality"]
    synthetic = no if known["synthetic"] is None else known["synthetic"].bool()
    label = no if batch.gt_label is None else batch.gt_label.bool()
    mask = marks > DEFECT if batch.gt_mask is None else batch.gt_mask.as_subclass(torch.Tensor) > 0
    if rows:
        pasted = torch.tensor([each.source is not None for each in rows], device=image.device)
        before = torch.stack([each.image if each.source is None else each.source for each in rows])
        image = image.index_copy(0, places, torch.stack([each.image for each in rows]))
        source = source.as_subclass(torch.Tensor).index_copy(0, places, _transform(pre_process, before))
        mask = mask.index_copy(0, places, marks[places] == DEFECT)
        quality = quality.index_fill(0, places, 1.0)
        synthetic = synthetic.index_copy(0, places, pasted)
        label = label.index_fill(0, places, True)
    if batch.image_path is not None:
        paths = list(batch.image_path)
        for each in rows:
            paths[each.row] = each.path
        batch.image_path = paths
    shown = torch.zeros_like(seen)
    shown[places] = seen[places]
    batch.image, batch.source = Image(image), Image(source)
    _set_mask(batch, mask)
    batch.gt_label, batch.quality, batch.synthetic, batch.marks = label, quality, synthetic, shown


def label_from_mask(batch: ImageBatch, pre_process: Callable | None = None) -> None:
    """Set ``gt_label`` of a batch from masks that a transform has changed; a label without a mask stays set.

    If the model's pre-processor leaves nothing of a mask, the image is labelled normal. If the batch has no
    ``quality``, it is set to 1; if it has no ``synthetic``, that is set to True where a mask came without a label.

    Args:
        batch: The batch, changed in place.
        pre_process: The transform of the model's pre-processor, or None.

    Raises:
        ValueError: If the batch has no masks.
    """
    if batch.gt_mask is None:
        msg = (
            "SynthesisCallback(generator=None) sets labels from masks, but the batch has no `gt_mask`, as a "
            "classification datamodule makes none. Use `anomalib_synth.data.SyntheticDataModule`, or pass a generator."
        )
        raise ValueError(msg)
    mask = batch.gt_mask.as_subclass(torch.Tensor) > 0
    labelled = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    labelled = labelled if batch.gt_label is None else batch.gt_label.bool()
    seen = _follow_mask(mask, labelled, pre_process)
    _set_mask(batch, mask)
    batch.gt_label = seen
    if getattr(batch, "quality", None) is None:
        batch.quality = torch.ones(len(mask), device=mask.device)
    if getattr(batch, "synthetic", None) is None:
        batch.synthetic = seen & ~labelled


def _follow_mask(mask: torch.Tensor, labelled: torch.Tensor, pre_process: Callable | None) -> torch.Tensor:
    """Return (B,) bool: which images are anomalous for the model; a label without a mask stays set."""
    return in_view(mask, pre_process) | (labelled & ~mask.flatten(1).any(1))


def _set_mask(batch: ImageBatch, mask: torch.Tensor) -> None:
    """Set ``gt_mask`` as a type that loses no small defect when it is resized."""
    batch.gt_mask = mask
    set_unchecked(batch, "gt_mask", CoverageMask(batch.gt_mask))


def _transform(pre_process: Callable | None, images: torch.Tensor) -> torch.Tensor:
    """Return images as the model's pre-processor will transform them later, with the same random numbers."""
    if pre_process is None:
        return images
    with torch.random.fork_rng(devices=[]):
        return pre_process(Image(images))
