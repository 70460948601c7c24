"""A datamodule that gives any anomalib datamodule synthetic defects: to train, to validate or to test with."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anomalib.data import AnomalibDataModule
from anomalib.data.datasets import AnomalibDepthDataset, AnomalibVideoDataset
from anomalib.data.utils import LabelName, ValSplitMode
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Image

from anomalib_synth.data.converted import convert_deep_images, parse_white_point
from anomalib_synth.data.dataset import EpochSampler, SyntheticDataset, SyntheticTrainDataset
from anomalib_synth.data.held_out import (
    LEARNED,
    check_not_held_out,
    hold_out,
    leave_copies_out,
    leave_held_out,
    normal_rows,
)
from anomalib_synth.data.kept_split import KeptSplit
from anomalib_synth.data.normals import check_images_of, model_transform
from anomalib_synth.generators import AnomalyGenerator
from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.host.splits import (
    SPLITS,
    forget_splits,
    hand_on_augmentations,
    list_files,
    split_test,
    split_validation,
)
from anomalib_synth.images import WhitePoint, read_tensor

if TYPE_CHECKING:
    import torch
    from anomalib.data import Batch

logger = logging.getLogger(__name__)

_MAX_NORMALS = 256
_FROM_TEST = (ValSplitMode.FROM_TEST, ValSplitMode.SAME_AS_TEST)


class SyntheticDataModule(AnomalibDataModule):
    """Wraps a datamodule and gives the splits you name synthetic defects; the others stay as it makes them.

    ``"val"`` and ``"test"`` become held-out normals, a share of which carries a defect. They are the wrapped
    datamodule's own normals of that split, or else normals taken out of the training set, so no defect is ever drawn
    on a training image; copies of one image count once, whatever their names. Real defects of a split you name are left
    out. The splits are rendered once at the size of the files and kept as stores under
    ``root/<name>-<category>/<digest>``, where the digest covers the generator, the image files, the shares and the
    seed: same inputs, same bytes. ``"train"`` draws defects while training, new ones in every epoch.

    Labels follow what the model sees. A defect that the model's own transform crops away is drawn again while training;
    in a kept split its image counts as normal. When a mask is reduced, a pixel stays marked if any part of it was, so
    no thin defect loses its mask.

    Use it to threshold a model without a single real defect (``splits=["val"]``), to train models on labelled batches
    (``"train"``), or both. Batch sizes, workers and augmentations are those of the wrapped datamodule. A datamodule
    without real defects, such as ``Folder(normal_dir=...)``, needs no further setting.

    Args:
        base: The datamodule to wrap; it holds images, not videos or depth maps.
        generator: Draws the defects. A copy is prepared with at most 256 training normals; yours stays as it is.
        splits: Any of ``"train"``, ``"val"``, ``"test"``.
        anomalous_ratio: Share of the held-out normals, and probability that a training image gets a defect, in (0, 1).
        val_ratio: Share of the training normals to hold out for ``"val"``, in (0, 1), at least two images.
        test_ratio: Share of the training normals to hold out for ``"test"``, in (0, 1), at least two images.
        root: Folder for the rendered splits.
        seed: Seed of the splits, the shuffling and the defects, and of the wrapped datamodule's splits if it has none.
        white_point: White of images of more than 8 bits, such as 4095 for 12 bits, or ``"find"`` to find it in the
            training images as everywhere here: the model then trains on copies in 8 bits, kept under ``root``, and its
            checkpoints tell `anomalib-synth predict` the white. None refuses such images, as anomalib's own reader
            clips them.

    Raises:
        TypeError: If ``base`` is no datamodule of anomalib or is wrapped already, or ``generator`` is no generator.
        ValueError: If another argument is out of its range; on ``setup``, if there are too few normal images.

    Example:
        >>> from anomalib.data import Folder
        >>> from anomalib_synth.generators import RuleBasedGenerator
        >>> datamodule = SyntheticDataModule(
        ...     Folder(name="screws", root="screws", normal_dir="good"),
        ...     RuleBasedGenerator(families=["scratch", "stain"]),
        ...     splits=["val", "test"],
        ... )
        >>> datamodule.name
        'screws'
    """

    def __init__(
        self,
        base: AnomalibDataModule,
        generator: AnomalyGenerator,
        *,
        splits: Sequence[str] = ("val",),
        anomalous_ratio: float = 0.5,
        val_ratio: float = 0.2,
        test_ratio: float = 0.2,
        root: str | Path = "datasets/synthetic",
        seed: int = 0,
        white_point: float | Literal["find"] | None = None,
    ) -> None:
        _check_types(base, generator)
        self._white = parse_white_point(white_point)
        for name, value in {
            "anomalous_ratio": anomalous_ratio,
            "val_ratio": val_ratio,
            "test_ratio": test_ratio,
        }.items():
            if not 0 < value < 1:
                msg = f"`{name}` must satisfy 0 < ratio < 1, got {value}. 0.2 means one image in five."
                raise ValueError(msg)
        super().__init__(
            train_batch_size=base.train_batch_size,
            eval_batch_size=base.eval_batch_size,
            num_workers=base.num_workers,
            train_augmentations=base.train_augmentations,
            val_augmentations=base.val_augmentations,
            test_augmentations=base.test_augmentations,
            val_split_mode=base.val_split_mode,
            val_split_ratio=base.val_split_ratio,
            test_split_mode=base.test_split_mode,
            test_split_ratio=base.test_split_ratio,
            seed=seed,
        )
        self.base = base
        self.generator = generator
        self.splits = _check_splits(splits)
        self.anomalous_ratio = anomalous_ratio
        self.held_out_ratio = {"val": val_ratio, "test": test_ratio}
        self.root = Path(root)
        self.white_point = white_point
        self._learned: set[str] = set()  # digests of what the samples show while training
        self.originals: dict[str, str] = {}  # file by its copy in 8 bits
        self.external_collate_fn = base.external_collate_fn
        self._has_splits = False

    @property
    def name(self) -> str:
        """Name of the wrapped datamodule, so that results land in the usual folder."""
        return self.base.name

    @property
    def category(self) -> str:
        """Category of the wrapped datamodule."""
        return self.base.category

    @category.setter
    def category(self, category: str) -> None:
        self.base.category = category

    def prepare_data(self) -> None:
        """Download what the wrapped datamodule needs; in a distributed run, also render the splits, once per node."""
        self.base.trainer = self.trainer
        self.base.prepare_data()
        if self.trainer is not None and self.trainer.world_size > 1:
            copy.copy(self)._setup()

    def setup(self, stage: str | None = None) -> None:
        """Make the splits, once; then append the model's resize to the augmentations."""
        if not self._has_splits:
            self._setup(stage)
            self._has_splits = True
            for split in ("val", "test"):
                if hasattr(self, f"{split}_data") and not getattr(self, f"{split}_data").has_anomalous:
                    msg = "The %s split of %s has no anomalous image. Add %r to `splits` to give it synthetic ones."
                    logger.warning(msg, split, self.name, split)
        hand_on_augmentations(self)
        self._label_what_is_seen()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the images: white of those of more than 8 bits; what samples show."""
        white = {"white_point": self._white.to_dict()} if self._white and self.originals else {}
        return white | ({LEARNED: sorted(self._learned)} if self._learned else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare with what a checkpoint kept, when a run goes on.

        Raises:
            ValueError: If its images were read by another white.
        """
        if self._white and self.originals and "white_point" in state_dict:
            self._white.check_same([("the checkpoint", WhitePoint.from_dict(state_dict["white_point"]))], "data")

    def _label_what_is_seen(self) -> None:
        """Let the labels of synthetic splits follow the transform of the model that is trained or tested."""
        transform = model_transform(getattr(self.trainer, "lightning_module", None))
        for split in SPLITS:
            dataset = getattr(self, f"{split}_data", None)
            if not isinstance(dataset, SyntheticDataset):
                continue
            hidden = dataset.look_through(transform)
            if hidden and not dataset.has_anomalous:
                msg = (
                    f"`generator` must draw at least one defect that the model sees for the {split} split, but the "
                    f"model's own transform leaves out all {hidden}. Crop less, or draw with a `foreground` mask of "
                    "what the model sees."
                )
                raise ValueError(msg)
            if hidden:
                msg = "Synthetic %s split: %d defects lie outside what the model sees, their images count as normal."
                logger.info(msg, split, hidden)

    def _setup(self, stage: str | None = None) -> None:
        base = self._open_base(stage)
        held_out = hold_out(base, self.splits, self.held_out_ratio, self.seed)
        if "test" not in self.splits:
            split_test(base)
        makes_val = "val" not in self.splits
        if makes_val and base.val_split_mode in _FROM_TEST and not len(base.test_data) and "test" not in self.splits:
            msg = (
                f"`splits` must name 'val' here, got {list(self.splits)}: `base` makes its validation set "
                f"{base.val_split_mode.value!r} and has no test image. Add 'val', or set `val_split_mode` of `base`."
            )
            raise ValueError(msg)
        if makes_val and base.val_split_mode not in _FROM_TEST:
            split_validation(base)
        normals = _NormalImages(evenly_spread(sorted(normal_rows(base.train_data).image_path), _MAX_NORMALS))
        generator = _Prepared(self.generator, normals)
        for split, paths in held_out.items():
            setattr(base, f"{split}_data", self._keep(split, paths, normals, generator))
        if makes_val and base.val_split_mode in _FROM_TEST:
            split_validation(base)
        if "train" in self.splits:
            leave_held_out(base, generator())
            base.train_data = SyntheticTrainDataset(
                base.train_data.samples,
                generator(),
                probability=self.anomalous_ratio,
                seed=self.seed,
                name=base.train_data.name,
                category=base.train_data.category,
            )
        shown = check_not_held_out(base, self.generator.defect_digests, "generator", splits=("val", "test"))
        if "train" in self.splits:
            self._learned = {*shown, *generator().normal_digests}
        self._take_over(base)

    def _open_base(self, stage: str | None) -> AnomalibDataModule:
        """Return a copy of the wrapped datamodule that has listed its images and not split them yet."""
        base = copy.copy(self.base)
        base.trainer = self.trainer
        base.seed = self.seed if base.seed is None else base.seed
        forget_splits(base)
        try:
            list_files(base, stage)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).rstrip(".")
            msg = (
                f"`base` {self.base.name} must find its images, but: {reason}. Check its folders and file extensions, "
                "and that no link among its images leads nowhere."
            )
            raise ValueError(msg) from error
        if isinstance(base.train_data, AnomalibVideoDataset | AnomalibDepthDataset):
            msg = f"`base` must hold images, got the video or depth datamodule {type(self.base).__name__}."
            raise ValueError(msg)
        if self._white is not None:
            self._white, self.originals = convert_deep_images(base, self._white, self._folder)
            whites = [(type(each).__name__, each.donor_white) for each in self.generator.walk()]
            self._white.check_same(whites, "generator")
            base.originals = self.originals
        check_images_of(base, "base")
        if not len(normal_rows(base.train_data)):
            msg = f"`base` {self.base.name} must have normal training images, got none. Check its folder of normals."
            raise ValueError(msg)
        if copies := leave_copies_out(base, self.splits):
            logger.warning("%s has %d images that are copies of others; each counts once.", self.name, copies)
        return base

    @property
    def _folder(self) -> Path:
        """Where what is made for this data set is kept."""
        name = "-".join(part.replace("/", "_").replace(os.sep, "_") for part in (self.name, self.category) if part)
        return self.root.resolve() / name

    def _keep(self, split: str, paths: list[str], normals: _NormalImages, generator: _Prepared) -> SyntheticDataset:
        """Return the synthetic split, from disk if it is there."""
        kept = KeptSplit.plan(
            split,
            paths,
            normals=normals.paths,
            generator=self.generator,
            anomalous_ratio=self.anomalous_ratio,
            seed=self.seed,
            folder=self._folder,
        )
        return SyntheticDataset(kept.load(generator), name=self.name, category=self.category)

    def _take_over(self, base: AnomalibDataModule) -> None:
        """Take the finished splits; normal images get an empty mask, also where the base had no masks at all."""
        for split in SPLITS:
            dataset = getattr(base, f"{split}_data", None)
            if dataset is None:
                continue
            if (dataset.samples.label_index == LabelName.NORMAL).all():
                dataset.samples.attrs["task"] = "segmentation"
            setattr(self, f"{split}_data", dataset)

    def train_dataloader(self) -> DataLoader:
        """Return the training dataloader; with synthetic defects, its sampler carries the epoch to the workers."""
        if not isinstance(self.train_data, SyntheticTrainDataset):
            return super().train_dataloader()
        sampler = EpochSampler(
            self.train_data,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
            shuffle=True,
            seed=self.seed,
        )
        return DataLoader(
            dataset=self.train_data,
            sampler=sampler,
            batch_size=self.train_batch_size,
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or self.train_data.collate_fn,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Give a training batch's ``source`` the pre-processing that the model will give its ``image``."""
        del dataloader_idx
        pre_process = model_transform(self.trainer.lightning_module)
        if self.trainer.training and pre_process is not None and getattr(batch, "source", None) is not None:
            batch.source = pre_process(Image(batch.source))
        return batch

    def val_dataloader(self) -> DataLoader:
        """Return the validation dataloader.

        Raises:
            ValueError: If there is no validation split.
        """
        if not hasattr(self, "val_data"):
            msg = f"There is no validation split: `splits` is {list(self.splits)} and `base` makes none. Add 'val'."
            raise ValueError(msg)
        return super().val_dataloader()


class _NormalImages:
    """Normals to prepare a generator with; can be iterated more than once, and holds one image at a time."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (read_tensor(Path(path), "base") for path in self.paths)


class _Prepared:
    """Copies and prepares the user's generator when first asked for it."""

    def __init__(self, generator: AnomalyGenerator, normals: _NormalImages) -> None:
        self._generator = generator
        self._normals = normals
        self._ready: AnomalyGenerator | None = None

    def __call__(self) -> AnomalyGenerator:
        if self._ready is None:
            self._ready = copy.deepcopy(self._generator)
            self._ready.prepare(self._normals)
        return self._ready


def _check_types(base: object, generator: object) -> None:
    if not isinstance(base, AnomalibDataModule) or isinstance(base, SyntheticDataModule):
        msg = (
            f"`base` must be a datamodule of anomalib, such as Folder(...) or MVTecAD(...), got {type(base).__name__}."
        )
        raise TypeError(msg)
    if not isinstance(generator, AnomalyGenerator):
        msg = f"`generator` must be an AnomalyGenerator, such as RuleBasedGenerator(), got {type(generator).__name__}."
        raise TypeError(msg)


def _check_splits(splits: Sequence[str]) -> tuple[str, ...]:
    listed = (splits,) if isinstance(splits, str) else tuple(splits)
    unknown = [split for split in listed if split not in SPLITS]
    if unknown or not listed:
        msg = f"`splits` must name at least one of {', '.join(SPLITS)}, got {list(listed)}."
        raise ValueError(msg)
    return tuple(split for split in SPLITS if split in listed)
