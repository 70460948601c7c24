"""Chooses the normal images of a synthetic split: none that is trained on, under whatever name."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from anomalib.data.utils import LabelName

from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import digest_file, digest_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anomalib.data import AnomalibDataModule, AnomalibDataset

    from anomalib_synth.generators import AnomalyGenerator

logger = logging.getLogger(__name__)

LEARNED = "anomalib_synth_learned"  # in a checkpoint: the digests of the real images that the model has learned
_LEAST = 2  # one image to stay normal, one for a defect


def leave_copies_out(base: AnomalibDataModule, splits: Sequence[str]) -> int:
    """Keep one file of each normal image, so that none is trained on under one name and held out under another.

    Normals for training go first, then those of the named evaluation splits, so a held-out image that is a copy of a
    training image is left out of its split, and one that is in both splits stays in the test split. Splits that are not
    named are not touched.

    Args:
        base: A datamodule that has listed its images; its datasets are replaced.
        splits: Names of the synthetic splits.

    Returns:
        The number of images that were left out.
    """
    known: set[str] = set()
    left_out = 0
    for split in ("train", "test", "val"):
        dataset = getattr(base, f"{split}_data", None)
        if dataset is None or (split != "train" and split not in splits):
            continue
        copies = set()
        rows = normal_rows(dataset).image_path
        for place, content in zip(rows.index, digest_images(rows, description="Looking for copies"), strict=True):
            if content in known:
                copies.add(place)
            known.add(content)
        if copies:
            kept = [place for place in range(len(dataset)) if place not in copies]
            setattr(base, f"{split}_data", dataset.subsample(kept))
            left_out += len(copies)
    return left_out


def hold_out(
    base: AnomalibDataModule, splits: Sequence[str], ratios: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Choose the normals of each synthetic evaluation split; those that were for training leave the training set.

    A split is made of the base's own normals for it; where there are none, of a seeded share of the training normals.
    The choice depends on the seed and on the paths within the data set, not on where the data set lies.

    Args:
        base: A datamodule that has listed its images, none of them twice; its ``train_data`` is replaced.
        splits: Names of the synthetic splits; ``"train"`` is ignored.
        ratios: Share of the training normals by name of the split, in (0, 1).
        seed: Seed of the choice.

    Returns:
        Paths by name of the split.

    Raises:
        ValueError: If there are too few normals, or the shares of the training normals sum to 1 or more.
    """
    held_out: dict[str, list[str]] = {}
    for split in ("test", "val"):
        own = normal_rows(getattr(base, f"{split}_data", None))
        if split in splits and len(own):
            if len(own) < _LEAST:
                msg = f"`base` must have at least {_LEAST} normal {split} images, got 1. One stays, one gets a defect."
                raise ValueError(msg)
            held_out[split] = list(own.image_path)
    shares = {split: ratios[split] for split in ("test", "val") if split in splits and split not in held_out}
    if not shares:
        return held_out
    normals = normal_rows(base.train_data)
    counts = _counts(shares, len(normals), base.name)
    folder = os.path.commonpath([Path(path).parent for path in normals.image_path])
    keys = [hash64(seed, Path(os.path.relpath(path, folder)).as_posix()) for path in normals.image_path]
    order = iter(normals.assign(key=keys).sort_values("key").index)
    taken: set[int] = set()
    for split, number in counts.items():
        indices = [next(order) for _ in range(number)]
        taken.update(indices)
        held_out[split] = list(normals.image_path.loc[indices])
    base.train_data = base.train_data.subsample([i for i in range(len(base.train_data)) if i not in taken])
    return held_out


def check_not_held_out(
    datamodule: object,
    images: Sequence[Path] | Mapping[str, str],
    argument: str,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
) -> list[str]:
    """Refuse to learn from images that a run holds out to validate or test, or shows as good, under whatever name.

    Args:
        datamodule: The run's datamodule, set up; splits without a list of samples are passed over.
        images: The images that are to be learned: files, or names of files by the digest of their pixels.
        argument: Name of the argument that names the images, for the error.
        splits: The splits to look at.

    Returns:
        The digests of the images, sorted.

    Raises:
        ValueError: If there are such images; the message names them.
    """
    if not images:
        return []
    originals: Mapping[str, str] = getattr(datamodule, "originals", {})  # of copies in 8 bits
    own = (
        dict(images) if isinstance(images, Mapping) else dict(zip(digest_images(images), map(str, images), strict=True))
    )
    for split in splits:
        samples = getattr(getattr(datamodule, f"{split}_data", None), "samples", None)
        if samples is None or "image_path" not in samples:
            continue
        held = samples if split != "train" else samples[samples.label_index == LabelName.NORMAL]
        columns = [held[name] for name in ("image_path", "source_path") if name in held]
        paths = sorted({path for column in columns for path in column if isinstance(path, str) and path})
        paths += [originals[path] for path in paths if path in originals]
        contents = dict(zip(digest_images(paths, description=f"Comparing with the {split} set"), paths, strict=True))
        leaked = [(own[content], contents[content]) for content in own if content in contents]
        if leaked:
            what = "shown as good in training" if split == "train" else f"in the run's {split} set"
            names = ", ".join(f"{file!r} (there {path!r})" for file, path in leaked[:3])
            msg = (
                f"`{argument}` must not hold images that are {what}, got {len(leaked)} of {len(images)}: {names}"
                f"{', ...' if len(leaked) > 3 else ''}. Take them out of one of the two."
            )
            raise ValueError(msg)
    return sorted(own)


def leave_held_out(datamodule: object, generator: AnomalyGenerator) -> None:
    """Have a generator that brings normals of its own, from a store, show none that a run validates or tests on.

    Args:
        datamodule: The run's datamodule, set up; what is none cannot be looked at.
        generator: What the run trains on.

    Raises:
        StoreError: If nothing is left to show.
    """
    if not generator.normal_digests:
        return
    originals: Mapping[str, str] = getattr(datamodule, "originals", {})
    paths: set[str] = set()
    for split in ("val", "test"):
        samples = getattr(getattr(datamodule, f"{split}_data", None), "samples", None)
        for column in ("image_path", "source_path"):
            if samples is not None and column in samples:
                paths |= {path for path in samples[column] if isinstance(path, str) and path}
    paths |= {originals[path] for path in paths if path in originals}
    held = {*digest_images(sorted(paths), description="Comparing with the store"), *map(digest_file, paths)}
    if count := generator.leave_normals_out(held):
        logger.warning("%d stored samples show images that this run validates or tests on, and are left out.", count)


def remember_learned(checkpoint: dict[str, Any], digests: Iterable[str]) -> None:
    """Add to a checkpoint the digests of real images that the model has learned."""
    known = {*checkpoint.get(LEARNED, []), *digests}
    if known:
        checkpoint[LEARNED] = sorted(known)


def find_learned(checkpoint: Mapping[str, Any]) -> set[str]:
    """Return the digests of the real images that a checkpoint's model has learned, of whatever wrote them down."""
    parts = [checkpoint, *(part for part in checkpoint.values() if isinstance(part, Mapping))]  # a datamodule's state
    return {digest for part in parts for digest in part.get(LEARNED) or []}


def normal_rows(dataset: AnomalibDataset | None) -> pd.DataFrame:
    """Return the normal samples of a dataset, indexed by their positions; none if there is no dataset."""
    if dataset is None:
        return pd.DataFrame({"image_path": []})
    return dataset.samples[dataset.samples.label_index == LabelName.NORMAL]


def _counts(shares: Mapping[str, float], available: int, name: str) -> dict[str, int]:
    """Return how many training normals each split takes: at least two, and at least one is left to train on."""
    if sum(shares.values()) >= 1:
        msg = (
            f"`val_ratio` + `test_ratio` must be < 1, got {sum(shares.values()):g}: nothing would be left to train on. "
            "Lower one of them."
        )
        raise ValueError(msg)

    def counts(total: int) -> dict[str, int]:
        return {split: max(_LEAST, round(share * total)) for split, share in shares.items()}

    if sum(counts(available).values()) >= available:
        needed = next(total for total in count(available + 1) if sum(counts(total).values()) < total)
        msg = (
            f"`base` {name} must have at least {needed} normal training images to hold some out for "
            f"{' and '.join(shares)}, got {available}. Add images, or lower `val_ratio` and `test_ratio`."
        )
        raise ValueError(msg)
    return counts(available)
