"""Synthetic defects inside the training loop of an anomalib model."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from PIL import Image

from anomalib_synth.callbacks.labels import label_from_mask, write_labels
from anomalib_synth.callbacks.restoring import RestoringCallback, require_single
from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data.held_out import check_not_held_out, leave_held_out, remember_learned
from anomalib_synth.data.normals import check_images_of, model_transform, training_normals
from anomalib_synth.functional.field_of_view import in_view, sees_all
from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.seeding import derive_seeds, gets_defect, hash64, image_key
from anomalib_synth.generators.validation import check_drawn_on, to_unit_range
from anomalib_synth.host.augmenters import AnomalyInput, SlotSwap, find_anomaly_input
from anomalib_synth.sample import AnomalySample

if TYPE_CHECKING:
    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import LightningModule, Trainer
    from torchvision.transforms.v2 import Transform

    from anomalib_synth.generators.prepared import PreparedNormals

logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"\d[\d.e+-]*")
_TRIES = 4  # draws until a defect lies where the model's transform leaves it visible


class SynthesisCallback(RestoringCallback):
    """Draws synthetic defects onto the training batches of any anomalib model that can learn from them.

    Add it under ``trainer.callbacks``. A model with an augmenter (DRAEM, DSR in its second phase, GLASS) trains with
    the callback in the augmenter's place; each call of the augmenter also writes ``quality`` and ``synthetic`` into the
    batch. For a model that learns from labelled samples (SuperSimpleNet with ``supervised: true``, UniNet, RealNet,
    DiscriminativePadim) the callback writes ``image``, ``source``, ``gt_mask``, ``gt_label``, ``quality`` and
    ``synthetic`` into the batch before the model's pre-processor normalises it. A model that cannot learn from
    anomalies is refused. If the model's own transform crops a defect away, the defect is drawn again; if that does not
    help, the image stays normal.

    Before training, the generator is prepared with the training normals at the size that the model sees, unless it is
    already prepared. Each image's seed is a hash of the run's seed, the epoch and the last three parts of the image's
    path, so a run can be repeated on any number of workers or devices.

    Args:
        generator: The generator that draws the defects. None: a transform among ``train_augmentations`` already drew
            them, and the callback only sets ``gt_label`` from the mask.
        probability: Probability that an image gets a defect, in [0, 1].
        seed: Seed of the run.
        distinct_samples: About how many different samples the run draws, >= 1; once that many are drawn, the epochs
            repeat from the first on. None takes the number from the model's attribute ``distinct_samples``, which
            models have that cache features of images (DiscriminativePadim); other models get new samples every epoch.
        max_normals: Most training normals to prepare the generator with, evenly spread, >= 1.
        grid_every_n_epochs: Every so many epochs a grid of samples goes to the loggers that take images and to
            ``<results>/synthesis/``; 0 for never.

    Raises:
        TypeError: If ``generator`` is neither a generator nor None.
        ValueError: If an argument is out of its range; at the start of training, if the model cannot learn from
            anomalies, or the run would be tested on what the samples show.

    Example:
        >>> from anomalib_synth.generators import RuleBasedGenerator
        >>> callback = SynthesisCallback(RuleBasedGenerator(families=["scratch", "nsa"]), probability=0.5)
    """

    writes_labels = True  # RealNet asks it for labelled batches before training

    def __init__(
        self,
        generator: AnomalyGenerator | None = None,
        *,
        probability: float = 0.5,
        seed: int = 0,
        distinct_samples: int | None = None,
        max_normals: int = 256,
        grid_every_n_epochs: int = 10,
    ) -> None:
        super().__init__()
        if generator is not None and not isinstance(generator, AnomalyGenerator):
            msg = f"`generator` must be one of `anomalib_synth.generators` or None, got {type(generator).__name__}."
            raise TypeError(msg)
        if not 0 <= probability <= 1:
            msg = f"`probability` must be in [0, 1], got {probability}."
            raise ValueError(msg)
        for name, value, least in (
            ("distinct_samples", distinct_samples, 1),
            ("max_normals", max_normals, 1),
            ("grid_every_n_epochs", grid_every_n_epochs, 0),
        ):
            if value is not None and value < least:
                msg = f"`{name}` must be >= {least}, got {value}."
                raise ValueError(msg)
        self.generator = generator
        self._prepares = generator is not None and generator.prepared is None
        self.probability = probability
        self.seed = seed
        self.distinct_samples = distinct_samples
        self.max_normals = max_normals
        self.grid_every_n_epochs = grid_every_n_epochs
        self._drawn_epochs: int | None = None  # after which the samples repeat
        self._anomaly_input: AnomalyInput | None = None
        self._swap: SlotSwap | None = None
        self._seeds: list[int] = []
        self._names: list[str] = []
        self._batch: ImageBatch | None = None
        self._learned: list[str] = []
        self._reasons: Counter[str] = Counter()
        self._shown: AnomalySample | None = None
        self._collects = False
        self.drawing_seconds = 0.0  # of this fit, with the draws that failed
        self.accepted_samples = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model that cannot learn from anomalies, before anything is prepared."""
        if stage != "fit":
            return
        require_single(
            trainer,
            self,
            "Each would draw over the samples of the other, or replace them. For several generators give one callback "
            "an `anomalib_synth.generators.MixtureGenerator`.",
        )
        self._anomaly_input = find_anomaly_input(pl_module)
        if self.generator is None and self._anomaly_input.kind == "slot":
            msg = (
                f"SynthesisCallback(generator=None) sets labels, but {type(pl_module).__name__} draws its own "
                "anomalies and reads no labels. Give the callback a generator."
            )
            raise ValueError(msg)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the images, prepare the generator and replace the model's augmenter."""
        self.restore()  # what a fit left that was killed between its hooks
        self.drawing_seconds, self.accepted_samples = 0.0, 0
        check_images_of(trainer.datamodule, "data")
        if self.generator is None:
            return
        defects = check_not_held_out(trainer.datamodule, self.generator.defect_digests, "generator")
        leave_held_out(trainer.datamodule, self.generator)
        self._learned = sorted({*defects, *self.generator.normal_digests})
        if self._prepares:  # in every fit, as the next one may be on another product
            self.generator.prepare(training_normals(trainer, limit=self.max_normals))
            logger.info("Foreground: %s.", cast("PreparedNormals", self.generator.prepared).foreground.note)
        anomaly_input = cast("AnomalyInput", self._anomaly_input)
        if anomaly_input.kind == "slot":
            self._swap = SlotSwap(pl_module, anomaly_input.slot, self._fill_slot)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set after how many epochs the samples repeat."""
        self._drawn_epochs = None
        wanted = self.distinct_samples or getattr(pl_module, "distinct_samples", None)
        if wanted is not None:
            loader = trainer.train_dataloader
            batch_size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
            expected = self.probability * trainer.num_training_batches * batch_size * trainer.world_size
            self._drawn_epochs = max(1, round(wanted / max(expected, 1)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch's grid, and decide whether this epoch collects one."""
        del pl_module
        self._shown = None
        self._collects = bool(self.grid_every_n_epochs) and trainer.current_epoch % self.grid_every_n_epochs == 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int
    ) -> None:
        """Draw onto the batch, or remember its seeds for the augmenter slot."""
        if self.generator is None:
            label_from_mask(batch, model_transform(pl_module))
            return
        paths = batch.image_path
        if paths is None:
            place = trainer.global_rank * 2**20 + batch_idx
            paths = [f"{place}:{position}" for position in range(len(batch.image))]
        epoch = trainer.current_epoch % (self._drawn_epochs or trainer.current_epoch + 1)
        self._names = [image_key(path) for path in paths]
        self._seeds = derive_seeds(self.seed, epoch, self._names).tolist()
        if cast("AnomalyInput", self._anomaly_input).kind == "labels":
            transform = model_transform(pl_module)
            write_labels(batch, self._draw(batch.image, transform), transform)
        else:
            self._batch = batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Log the acceptance rate, warn if most draws fail, and save the grid if one was collected."""
        counts = torch.tensor([self._reasons.pop("", 0), self._reasons.total()], dtype=torch.float32)
        accepted, rejected = trainer.strategy.reduce(counts.to(pl_module.device), reduce_op="sum").tolist()
        tried = accepted + rejected
        if tried:
            pl_module.log("synthesis_accepted", accepted / tried, rank_zero_only=True)
        if accepted < rejected:
            common = ", ".join(f"{reason} ({count})" for reason, count in self._reasons.most_common(3))
            logger.warning("Only %d of %d synthetic samples passed the checks: %s", accepted, tried, common)
        self._reasons.clear()
        if self._shown is not None and trainer.is_global_zero:
            self._log_grid(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record in the checkpoint which real defects, and which normals of a store, the samples show."""
        remember_learned(checkpoint, self._learned)

    def restore(self) -> None:
        """Put the model's own augmenter back."""
        if self._swap is not None:
            self._swap.restore()
            self._swap = None

    def switch_generator(self, generator: AnomalyGenerator) -> None:
        """Draw with another generator, which must be prepared, from the next batch on."""
        self.generator = generator

    def _fill_slot(self, images: torch.Tensor) -> AnomalySample:
        """Draw in place of the augmenter, and write quality and origin of the samples into the batch."""
        sample = self._draw(images)
        check_drawn_on(
            sample, images, self.generator, ["the batch's, with which this model compares it"] * len(images),
            "Give StoredGenerator `paired: false`, or train Supersimplenet (supervised: true), UniNet, RealNet or "
            "DiscriminativePadim.",
        )  # fmt: skip
        batch: Any = self._batch
        batch.quality = sample.quality
        batch.synthetic = sample.label & sample.accepted
        return sample

    def _draw(self, images: torch.Tensor, transform: Transform | None = None) -> AnomalySample:
        """Draw defects onto the chosen images of the batch whose seeds are remembered.

        Args:
            images: The images of the batch, (B, C, H, W).
            transform: The transform that the model will apply to them, None for none.
        """
        if len(images) != len(self._seeds):
            msg = f"The model passes {len(images)} images to its augmenter, but the batch has {len(self._seeds)}."
            raise ValueError(msg)
        images = to_unit_range(images)
        chosen = [row for row, seed in enumerate(self._seeds) if gets_defect(seed, self.probability)]
        sample = AnomalySample.unchanged(images, [None] * len(images), "not chosen")
        if not chosen:
            return sample
        before = time.perf_counter()
        drawn = self._draw_in_view(images[chosen], chosen, transform)
        self.accepted_samples += int(drawn.accepted.sum())  # waits for the device, so that the time below is complete
        self.drawing_seconds += time.perf_counter() - before
        sample.place(chosen, drawn)
        self._reasons.update(_NUMBER.sub("#", reason) for reason in drawn.reason)
        if self._collects and self._shown is None and bool(drawn.accepted.any()):
            self._shown = drawn
        return sample

    def _draw_in_view(self, images: torch.Tensor, chosen: list[int], transform: Transform | None) -> AnomalySample:
        """Draw defects; redraw those that the model's transform crops away, and give them up after ``_TRIES`` draws."""
        generator = cast("AnomalyGenerator", self.generator)
        seeds = [self._seeds[row] for row in chosen]
        names = generator.name_images([self._names[row] for row in chosen])
        drawn = generator(images, seeds=seeds, **names)
        for attempt in range(0 if sees_all(transform) else _TRIES):
            seen = in_view(drawn.mask[:, 0], transform)
            hidden = (drawn.accepted & ~seen).nonzero().flatten().tolist()
            if not hidden:
                break
            if attempt + 1 < _TRIES:
                others = [hash64(seeds[row], "in view", attempt + 1) for row in hidden]
                theirs = generator.name_images([self._names[chosen[row]] for row in hidden])
                again = generator(images[hidden], seeds=others, **theirs)
            else:
                records = [drawn.provenance[row] for row in hidden]
                again = AnomalySample.unchanged(images[hidden], records, "outside what the model sees")
            drawn.place(hidden, again)
        return drawn

    def _log_grid(self, trainer: Trainer) -> None:
        """Save the collected grid as PNG and send it to the loggers that take images."""
        shown = cast("AnomalySample", self._shown)
        grid = draw_sample_grid(shown, shown.accepted.nonzero().flatten().tolist()[:8])
        folder = Path(trainer.default_root_dir) / "synthesis"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid).save(folder / f"epoch_{trainer.current_epoch:04d}.png")
        for destination in trainer.loggers:
            if hasattr(destination, "add_image"):
                destination.add_image(image=grid, name="synthesis", global_step=trainer.global_step)
