"""Real defects inside the training loop of an anomalib model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback
from torchvision.transforms.v2 import functional as tvf
from torchvision.tv_tensors import Image

from anomalib_synth.callbacks.labels import RealRow, write_real_rows
from anomalib_synth.callbacks.restoring import require_single
from anomalib_synth.data.held_out import check_not_held_out, remember_learned
from anomalib_synth.data.normals import check_images_of, model_transform, training_normals
from anomalib_synth.defects import DEFECT, list_defects
from anomalib_synth.functional.field_of_view import CoverageMask
from anomalib_synth.generators import RealDefectGenerator
from anomalib_synth.generators.seeding import RandomStream, hash64, image_key
from anomalib_synth.host.augmenters import find_anomaly_input
from anomalib_synth.images import check_host_agrees, read_tensor

if TYPE_CHECKING:
    from anomalib.data import ImageBatch
    from lightning.pytorch import LightningModule, Trainer

    from anomalib_synth.defects import RealDefect

logger = logging.getLogger(__name__)
_PREPARED = 64  # normals with which the generator of pasted variants is prepared
_UNCERTAIN = 0.25  # probability that a chosen defect without a mask is used: it is a less reliable teacher
_MOST_KEPT = 512 * 2**20  # bytes of decoded images
_DISTINCT = 200  # pasted variants, about; then they repeat


class _Choice(NamedTuple):
    """What one row of a batch becomes."""

    row: int
    defect: RealDefect
    seed: int | None  # of the pasted variant; None for the image of the defect itself
    visit: int  # seed of everything else that is random about this row


class RealDefectsCallback(Callback):
    """Puts real defects into every training batch.

    Add it under ``trainer.callbacks``, together with :class:`SynthesisCallback` for kinds of defects of which you have
    no real ones. It replaces a share of each batch's rows. Half of these rows become the images of your defects as they
    are. In the other half a defect is pasted on the row's own normal image, mirrored, turned, scaled and in another
    place (:class:`~anomalib_synth.generators.RealDefectGenerator`). It works with models that learn from labelled
    batches: DiscriminativePadim, RealNet, SuperSimpleNet with ``supervised: true``, UniNet.

    Defects may be marked by masks, boxes, clicks or scribbles, or not at all: see :mod:`anomalib_synth.defects`. If a
    defect has no mask, the model must find it itself, which only DiscriminativePadim can. Such a defect is not pasted,
    and a row chosen for it is used only one time in four.

    The model has seen these images afterwards. The run is therefore refused if its test or validation set, or the
    normals it trains on, contain one of them, under whatever name.

    Args:
        defects: Folder of images with defects, or the images.
        marks: Where the defects are marked; None looks beside the images. See
            :func:`anomalib_synth.defects.list_defects`.
        share: Share of each batch's rows to replace, in (0, 1); at least one row.
        pasted: Share of those rows that show a defect pasted on another image, in [0, 1].
        seed: Seed of the choices.

    Raises:
        ValueError: If an argument is out of its range; at the start of training, if a defect or its mark cannot be
            read, the model cannot learn from it, or the run would be tested on it.

    Example:
        >>> RealDefectsCallback("parts/defects", share=0.25).share
        0.25
    """

    writes_labels = True

    def __init__(
        self,
        defects: Path | str | Sequence[Path],
        marks: Path | str | None = None,
        *,
        share: float = 0.375,
        pasted: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            msg = f"`share` must be in (0, 1), got {share}. With 0.375, three of eight rows show real defects."
            raise ValueError(msg)
        if not 0 <= pasted <= 1:
            msg = f"`pasted` must be in [0, 1], got {pasted}."
            raise ValueError(msg)
        self.defects = defects
        self.marks = marks
        self.share = share
        self.pasted = pasted
        self.seed = seed
        self._listed: list[RealDefect] = []
        self._generator: RealDefectGenerator | None = None
        self._repeats = 1  # epochs after which the pasted variants repeat
        self._learned: list[str] = []  # digests of the images, once they are listed
        self._kept: dict[Path, tuple[torch.Tensor, torch.Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model that cannot learn from the defects, before anything is read."""
        if stage != "fit":
            return
        require_single(trainer, self, "Put all defects into one folder, or give their files to one callback.")
        name = type(pl_module).__name__
        if find_anomaly_input(pl_module).kind != "labels":
            msg = (
                f"`defects` are labelled images, but {name} draws its own anomalies and reads no labels. Paste them "
                "with SynthesisCallback and RealDefectGenerator, or train DiscriminativePadim, RealNet, Supersimplenet "
                "(supervised: true) or UniNet."
            )
            raise ValueError(msg)
        self._listed = self.list_defects()
        check_host_agrees([defect.image for defect in self._listed], "defects")
        unmasked = [defect for defect in self._listed if defect.kind != "mask"]
        if unmasked and not getattr(pl_module, "learns_from_marks", False):
            msg = (
                f"`defects` must have masks for {name}, but {len(unmasked)} of {len(self._listed)} have none, such as "
                f"{str(unmasked[0].image)!r} ({unmasked[0].kind}). Paint them with `anomalib-synth review --images`, "
                "or train DiscriminativePadim, which finds the defect itself."
            )
            raise ValueError(msg)

    def list_defects(self) -> list[RealDefect]:
        """Return the defects, sorted.

        Raises:
            ValueError: See :func:`anomalib_synth.defects.list_defects`.
        """
        return list_defects(self.defects, marks=self.marks)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the run is not tested on the defects, and prepare the generator that pastes them."""
        check_images_of(trainer.datamodule, "data")
        files = [defect.image for defect in self._listed]
        self._learned = check_not_held_out(trainer.datamodule, files, "defects")
        self._kept.clear()
        masked = [defect.image for defect in self._listed if defect.kind == "mask"]
        if hasattr(pl_module, "real_masks"):
            pl_module.real_masks = len(masked)
        self._generator = None
        if masked and self.pasted:
            self._generator = RealDefectGenerator(self.defects, self.marks, skip_unmarked=True, seed=self.seed)
            self._generator.prepare(training_normals(trainer, limit=_PREPARED))
        logger.info("Real defects: %d images, %d of them with masks.", len(files), len(masked))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set after how many epochs the pasted variants repeat, for models that cache features of images."""
        del pl_module
        loader = trainer.train_dataloader
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
        expected = self.pasted * self._count(size) * trainer.num_training_batches * trainer.world_size
        self._repeats = max(1, round(_DISTINCT / max(expected, 1)))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int
    ) -> None:
        """Replace some rows of the batch."""
        place = trainer.global_rank * 2**20 + batch_idx
        choices = self._choose(batch, trainer.current_epoch % self._repeats, place)
        rows = [
            self._read(trainer, batch, choice) if choice.seed is None else self._paste(batch, choice)
            for choice in choices
        ]
        write_real_rows(batch, [row for row in rows if row is not None], model_transform(pl_module))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the digests of the defects in the checkpoint."""
        remember_learned(checkpoint, self._learned)

    def _count(self, size: int) -> int:
        return max(1, round(self.share * size))

    def _choose(self, batch: ImageBatch, epoch: int, place: int) -> list[_Choice]:
        """Choose which rows to replace, by a hash of image and epoch, and what each becomes."""
        names = [f"{place}:{row}" for row in range(len(batch.image))]
        if batch.image_path is not None:
            names = [image_key(path) for path in batch.image_path]
        seeds = [hash64(self.seed, "real", epoch, name) for name in names]
        good = [row for row in range(len(seeds)) if batch.gt_label is None or _is_replaceable(batch, row)]
        chosen = sorted(good, key=lambda row: seeds[row])[: self._count(len(seeds))]
        choices = []
        for row in sorted(chosen):
            visit = hash64(seeds[row], epoch, place)  # an unpasted defect may differ in every epoch
            draws = RandomStream(visit)
            is_drawn = getattr(batch, "synthetic", None) is not None and bool(batch.synthetic[row])
            pastes = self._generator is not None and not is_drawn and RandomStream(seeds[row]).unit() < self.pasted
            defect = self._listed[draws.integer(0, len(self._listed) - 1)]
            if not pastes and defect.kind != "mask" and draws.unit() >= _UNCERTAIN:
                continue
            choices.append(_Choice(row, defect, seeds[row] if pastes else None, visit))
        return choices

    def _read(self, trainer: Trainer, batch: ImageBatch, choice: _Choice) -> RealRow:
        """Return the image of a defect, augmented and resized like the run's own images."""
        image, marks = self._load(choice.defect)
        augment = getattr(getattr(trainer.train_dataloader, "dataset", None), "augmentations", None)
        if augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(choice.visit)
                image, marks = augment(Image(image), CoverageMask(marks))
        size = list(batch.image.shape[-2:])
        if list(image.shape[-2:]) != size:
            image, marks = tvf.resize(Image(image), size, antialias=True), tvf.resize(CoverageMask(marks), size)
        return RealRow(
            row=choice.row,
            image=image.as_subclass(torch.Tensor).to(batch.image),
            source=None,
            marks=marks.as_subclass(torch.Tensor).to(batch.image.device),
            path=str(choice.defect.image),
        )

    def _paste(self, batch: ImageBatch, choice: _Choice) -> RealRow | None:
        """Return the row's own image with a defect pasted on, None if the pasted defect failed its checks."""
        source = batch.image[choice.row].as_subclass(torch.Tensor)
        sample = cast("RealDefectGenerator", self._generator)(source[None], seeds=torch.tensor([choice.seed]))
        if not bool(sample.accepted[0]):
            return None
        path = f"{choice.row}" if batch.image_path is None else batch.image_path[choice.row]
        marks = (sample.mask[0, 0] > 0).to(torch.uint8) * DEFECT
        return RealRow(row=choice.row, image=sample.image[0], source=source, marks=marks, path=path)

    def _load(self, defect: RealDefect) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image (3, H, W) in [0, 1] and the marks (H, W) uint8 of a defect; cached, up to a limit."""
        kept = self._kept.get(defect.image)
        if kept is None:
            image = (read_tensor(defect.image, "defects") * 255).round().to(torch.uint8)
            kept = image, torch.from_numpy(defect.read_marks())
            if sum(each.nbytes + marks.nbytes for each, marks in self._kept.values()) < _MOST_KEPT:
                self._kept[defect.image] = kept
        return kept[0].float() / 255, kept[1]


def _is_replaceable(batch: ImageBatch, row: int) -> bool:
    """Return whether a row is a normal or has a synthetic defect, so that no real defect is lost."""
    synthetic = getattr(batch, "synthetic", None)
    return not bool(batch.gt_label[row]) or (synthetic is not None and bool(synthetic[row]))
