"""The demo parts as an anomalib datamodule."""

from functools import reduce
from operator import add
from pathlib import Path

from anomalib.data import AnomalibDataModule
from anomalib.data.datasets import MVTecADDataset
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode
from torchvision.transforms.v2 import Transform

from anomalib_synth.demo.parts import PART_KINDS
from anomalib_synth.demo.writer import RenderPlan, is_rendered, render_category

MIN_IMAGE_SIZE = 96


class DemoParts(AnomalibDataModule):
    """Rendered inspection images with held-out defects, for trying a detector without downloading a data set.

    The first ``prepare_data()`` renders the images with NumPy and writes them as PNG in the layout of MVTec AD; later
    calls reuse them. Light, pose, sensor noise and the product itself vary within tolerance. The defects of the test
    set are made by the renderer, not by this package's generators, and the masks show where the image really changed.

    Args:
        root (Path | str): Folder of the categories. Defaults to ``"datasets/DemoParts"``.
        category (str): ``"brushed_metal"``, ``"woven_fabric"``, ``"printed_cap"``, ``"circuit_board"``, or ``"all"``
            for the four together. Defaults to ``"printed_cap"``.
        image_size (int): Side of the images in pixels, at least 96. Defaults to ``256``.
        num_train (int): Good training images per category, at least 2. Defaults to ``64``.
        num_test_good (int): Good test images per category, at least 1. Defaults to ``20``.
        num_test_defect (int): Defective test images per category, at least 1. Defaults to ``24``.
        train_batch_size (int): Training batch size. Defaults to ``16``.
        eval_batch_size (int): Validation and test batch size. Defaults to ``16``.
        num_workers (int): Workers of each data loader. Defaults to ``0``.
        train_augmentations (Transform | None): Augmentations of training images. Defaults to ``None``.
        val_augmentations (Transform | None): Augmentations of validation images. Defaults to ``None``.
        test_augmentations (Transform | None): Augmentations of test images. Defaults to ``None``.
        augmentations (Transform | None): Augmentations for splits without their own. Defaults to ``None``.
        test_split_mode (TestSplitMode | str): Where test images come from. Defaults to ``from_dir``.
        test_split_ratio (float): As in anomalib's datamodules. Defaults to ``0.2``.
        val_split_mode (ValSplitMode | str): Where validation images come from. The default ``from_train`` holds out
            good training images, so that nothing is tuned on test images; ``from_dir`` is not available.
        val_split_ratio (float): Share of the training images for validation. Defaults to ``0.2``.
        seed (int): Seed of the parts and of the splits, at least 0. Defaults to ``0``.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from anomalib_synth.demo import DemoParts
        >>> datamodule = DemoParts(category="woven_fabric", image_size=128)
        >>> datamodule.category
        'woven_fabric'
    """

    def __init__(
        self,
        *,
        root: Path | str = "datasets/DemoParts",
        category: str = "printed_cap",
        image_size: int = 256,
        num_train: int = 64,
        num_test_good: int = 20,
        num_test_defect: int = 24,
        train_batch_size: int = 16,
        eval_batch_size: int = 16,
        num_workers: int = 0,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        test_split_ratio: float = 0.2,
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_TRAIN,
        val_split_ratio: float = 0.2,
        seed: int = 0,
    ) -> None:
        _check_choice(category, val_split_mode)
        _check_least("image_size", image_size, MIN_IMAGE_SIZE)
        _check_least("num_train", num_train, 2)
        _check_least("num_test_good", num_test_good, 1)
        _check_least("num_test_defect", num_test_defect, 1)
        _check_least("seed", seed, 0)
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=test_split_mode,
            test_split_ratio=test_split_ratio,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        self.root = Path(root)
        self.category = category
        self.plans = tuple(
            RenderPlan(
                kind=kind,
                image_size=image_size,
                num_train=num_train,
                num_test_good=num_test_good,
                num_test_defect=num_test_defect,
                seed=seed,
            )
            for kind in (PART_KINDS if category == "all" else (category,))
        )

    def prepare_data(self) -> None:
        """Render the images that are not on disk yet.

        Raises:
            FileExistsError: If ``root`` holds images of other parameters, or other data under a category's name.
        """
        for plan in self.plans:
            render_category(self.root, plan)

    def _setup(self, _stage: str | None = None) -> None:
        for plan in self.plans:
            if not is_rendered(self.root / plan.kind, plan):
                msg = (
                    f"`root` must hold the rendered images, '{self.root / plan.kind}' is missing. Call prepare_data()."
                )
                raise FileNotFoundError(msg)
        self.train_data = self._dataset(Split.TRAIN)
        self.test_data = self._dataset(Split.TEST)

    def _dataset(self, split: Split) -> MVTecADDataset:
        parts = [MVTecADDataset(root=self.root, category=plan.kind, split=split) for plan in self.plans]
        return reduce(add, parts)


def _check_choice(category: str, val_split_mode: ValSplitMode | str) -> None:
    known = (*PART_KINDS, "all")
    if category not in known:
        msg = f"`category` must be one of {', '.join(known)}, got '{category}'."
        raise ValueError(msg)
    if ValSplitMode(val_split_mode) is ValSplitMode.FROM_DIR:
        msg = "`val_split_mode` must not be 'from_dir', there is no validation folder. Use 'from_train' (the default)."
        raise ValueError(msg)


def _check_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"`{name}` must be an integer of at least {least}, got {value!r}."
        raise ValueError(msg)
