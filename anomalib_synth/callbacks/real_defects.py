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
_PREPARED = 64  # normals that the pasted variants are prepared with
_UNCERTAIN = 0.25  # how often a defect without a mask takes its row: what it teaches is right less often
_MOST_KEPT = 512 * 2**20  # bytes of decoded images
_DISTINCT = 200  # pasted variants, after which they come again


class _Choice(NamedTuple):
    """What one row of a batch becomes."""

    row: int
    defect: RealDefect
    seed: int | None  # of a pasted variant; None for the image itself
    visit: int  # seed of what is random about this visit


class RealDefectsCallback(Callback):
    """Puts the few real defects you have into every training batch, beside synthetic ones.

    One entry under ``trainer.callbacks``, with :class:`SynthesisCallback` for the kinds of defects you have none of. It
    takes a share of each batch's rows: half of them become the images of your defects as they are, the other half good
    images with one of the defects pasted on: mirrored, turned, scaled, in another place
    (:class:`~anomalib_synth.generators.RealDefectGenerator`). For models that learn from labelled batches
    (DiscriminativePadim, RealNet, SuperSimpleNet with ``supervised: true``, UniNet).

    Defects are marked by masks, boxes, clicks or scribbles, or not at all: see :mod:`anomalib_synth.defects`. Without
    a mask the model has to find the defect itself, which DiscriminativePadim can; those defects are not pasted, and
    take a quarter of the rows.

    An image used here has been learned. The run is refused if its test or validation set, or the good images it trains
    on, hold one of them, under whatever name.

    Args:
        defects: Folder of images with defects, or the images.
        marks: Where they are marked; None looks beside them. See :func:`anomalib_synth.defects.list_defects`.
        share: Share of each batch's rows, in (0, 1); at least one row. Three of eight by default: beside
            SynthesisCallback, three in four of the defective rows.
        pasted: Share of those rows that show a defect pasted on another image, in [0, 1].
        seed: Seed of the choices.

    Raises:
        ValueError: If an argument is out of its range; at the start of training, if a defect cannot be read, its mark
            is none, the model cannot learn from it, or the run would be tested on it.

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
            msg = f"`share` must be in (0, 1), got {share}. 0.375 makes three rows of eight real defects."
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
        self._repeats = 1  # epochs after which the pasted variants come again
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
                f"`defects` are labelled images, which {name} does not train on: it draws its own. Paste them with "
                "SynthesisCallback and RealDefectGenerator, or train DiscriminativePadim, RealNet, Supersimplenet "
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
        """Return the defects.

        Raises:
            ValueError: As :func:`anomalib_synth.defects.list_defects`.
        """
        return list_defects(self.defects, marks=self.marks)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that the run is not tested on the defects, and prepare what pastes them."""
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
        """Count the epochs after which the pasted variants come again: features of images seen before are kept."""
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
        """Write down what was learned."""
        remember_learned(checkpoint, self._learned)

    def _count(self, size: int) -> int:
        return max(1, round(self.share * size))

    def _choose(self, batch: ImageBatch, epoch: int, place: int) -> list[_Choice]:
        """Choose the rows, by what their images and the epoch hash to, and what they become."""
        names = [f"{place}:{row}" for row in range(len(batch.image))]
        if batch.image_path is not None:
            names = [image_key(path) for path in batch.image_path]
        seeds = [hash64(self.seed, "real", epoch, name) for name in names]
        good = [row for row in range(len(seeds)) if batch.gt_label is None or _is_replaceable(batch, row)]
        chosen = sorted(good, key=lambda row: seeds[row])[: self._count(len(seeds))]
        choices = []
        for row in sorted(chosen):
            visit = hash64(seeds[row], epoch, place)  # the image itself may be any, in any visit
            draws = RandomStream(visit)
            is_drawn = getattr(batch, "synthetic", None) is not None and bool(batch.synthetic[row])
            pastes = self._generator is not None and not is_drawn and RandomStream(seeds[row]).unit() < self.pasted
            defect = self._listed[draws.integer(0, len(self._listed) - 1)]
            if not pastes and defect.kind != "mask" and draws.unit() >= _UNCERTAIN:
                continue
            choices.append(_Choice(row, defect, seeds[row] if pastes else None, visit))
        return choices

    def _read(self, trainer: Trainer, batch: ImageBatch, choice: _Choice) -> RealRow:
        """Return the image of a defect as the run's own images come: augmented, and at their size."""
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
        """Return the row's own image with a defect pasted on, None if that failed its checks."""
        source = batch.image[choice.row].as_subclass(torch.Tensor)
        sample = cast("RealDefectGenerator", self._generator)(source[None], seeds=torch.tensor([choice.seed]))
        if not bool(sample.accepted[0]):
            return None
        path = f"{choice.row}" if batch.image_path is None else batch.image_path[choice.row]
        marks = (sample.mask[0, 0] > 0).to(torch.uint8) * DEFECT
        return RealRow(row=choice.row, image=sample.image[0], source=source, marks=marks, path=path)

    def _load(self, defect: RealDefect) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image (3, H, W) in [0, 1] and the marks (H, W) uint8 of a defect, kept up to a limit."""
        kept = self._kept.get(defect.image)
        if kept is None:
            image = (read_tensor(defect.image, "defects") * 255).round().to(torch.uint8)
            kept = image, torch.from_numpy(defect.read_marks())
            if sum(each.nbytes + marks.nbytes for each, marks in self._kept.values()) < _MOST_KEPT:
                self._kept[defect.image] = kept
        return kept[0].float() / 255, kept[1]


def _is_replaceable(batch: ImageBatch, row: int) -> bool:
    """Return whether a row is a good image, or one with a defect that is drawn: nothing real is lost with it."""
    synthetic = getattr(batch, "synthetic", None)
    return not bool(batch.gt_label[row]) or (synthetic is not None and bool(synthetic[row]))
