"""A synthetic validation or test split that is rendered once and kept on disk, so that all runs have the same."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from anomalib.data.utils import LabelName

from anomalib_synth._version import __version__
from anomalib_synth.generators.keeping import SampleKeeper, to_levels
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.generators.validation import check_drawn_on
from anomalib_synth.images import digest_file, read_size, read_tensor
from anomalib_synth.images.batching import batch_by_size
from anomalib_synth.progress import track
from anomalib_synth.store import SampleStore, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anomalib_synth.generators import AnomalyGenerator

logger = logging.getLogger(__name__)

_BATCH = (8, 2**24)  # images and pixels drawn at once


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One held-out normal image.

    Args:
        path: Its file.
        content: Digest of the file's bytes.
        seed: Seed of the defect drawn on it. It comes from the file's content, so moving the data set changes nothing.
        anomalous: Whether a defect is drawn on it.
    """

    path: str
    content: str
    seed: int
    anomalous: bool


@dataclass(frozen=True, kw_only=True)
class KeptSplit:
    """Held-out normals, of which a share is kept with synthetic defects in a store, ``folder/<digest>``.

    ``anomalib-synth review``, ``check`` and ``export`` work on that store. If somebody rejects a defect in the review,
    its image counts as normal from then on.

    Args:
        split: ``"val"`` or ``"test"``.
        held_out: The images, in an order that depends only on their content and the seed.
        folder: Folder for the splits of this data set.
        settings: Everything that the pixels depend on, as plain data; its digest names the store.
    """

    split: str
    held_out: list[HeldOut]
    folder: Path
    settings: dict[str, Any]

    @classmethod
    def plan(
        cls,
        split: str,
        paths: Sequence[str],
        *,
        normals: Sequence[str],
        generator: AnomalyGenerator,
        anomalous_ratio: float,
        seed: int,
        folder: Path,
    ) -> KeptSplit:
        """Choose the images that get a defect.

        Args:
            split: ``"val"`` or ``"test"``.
            paths: The held-out normals, at least two.
            normals: The training normals that the generator is prepared with. The settings hold their file digests
                instead of the prepare digest, so that no image must be decoded to find a kept split.
            generator: The generator that draws the defects.
            anomalous_ratio: Share of the held-out normals that get a defect, in (0, 1); at least one image gets one,
                and at least one does not.
            seed: Seed of the choice and of the defects.
            folder: Folder for the splits of this data set.
        """
        seen: Counter[str] = Counter()
        keyed = []
        for path in sorted(paths):
            content = digest_file(path)
            keyed.append((hash64(seed, split, content, seen[content]), content, path))
            seen[content] += 1
        count = min(len(keyed) - 1, max(1, round(anomalous_ratio * len(keyed))))
        held_out = [
            HeldOut(path=path, content=content, seed=hash64(key, "defect"), anomalous=position < count)
            for position, (key, content, path) in enumerate(sorted(keyed))
        ]
        settings = {
            "version": __version__,
            "split": split,
            "seed": seed,
            "anomalous_ratio": anomalous_ratio,
            "generator": generator.config,
            "files": generator.files_digest,
            "normals": sorted(digest_file(path) for path in normals),
            "held_out": [image.content for image in held_out],
        }
        return cls(split=split, held_out=held_out, folder=folder, settings=settings)

    @property
    def path(self) -> Path:
        """Folder of the store."""
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return self.folder / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def load(self, prepared_generator: Callable[[], AnomalyGenerator]) -> pd.DataFrame:
        """Return the samples of the split; render them first if they are not kept yet.

        Args:
            prepared_generator: Returns the prepared generator; called only if there is something to draw.

        Returns:
            One row for each held-out image, as anomalib's datasets have them, with ``quality``, ``family``,
            ``caption`` and ``source_path``.

        Raises:
            ValueError: If the kept files are damaged, or no draw was accepted.
        """
        if self.path.is_dir():
            logger.info("Synthetic %s split: reusing %s.", self.split, self.path)
        else:
            self._render(prepared_generator())
        store = self._open()
        samples = [self._sample(image, store, position) for position, image in enumerate(self.held_out)]
        anomalous = sum(sample["label_index"] == LabelName.ABNORMAL for sample in samples)
        rejected = Counter(
            record.reason or "rejected in the review" for record in store.records if not store.is_accepted(record)
        )
        logger.info(
            "Synthetic %s split: %d normal and %d anomalous images, %d rejected draws stay normal%s.",
            self.split,
            len(samples) - anomalous,
            anomalous,
            rejected.total(),
            f" ({rejected.most_common(1)[0][0]})" if rejected else "",
        )
        if not anomalous:
            msg = (
                f"`generator` must draw at least one accepted defect for the {self.split} split, but all "
                f"{rejected.total()} were rejected: {dict(rejected.most_common(3))}. "
                "Use stronger or larger defects, looser `checks`, or other families."
            )
            raise ValueError(msg)
        return pd.DataFrame(samples)

    def _sample(self, image: HeldOut, store: SampleStore, position: int) -> dict[str, Any]:
        """Return the row of an image; images that get a defect come first, in the order of the store's records."""
        common = {"split": self.split, "source_path": image.path}
        record = store.records[position] if image.anomalous else None
        if record is None or not store.is_accepted(record):
            normal = {"label": "normal", "label_index": int(LabelName.NORMAL), "mask_path": "", "quality": 1.0}
            return {"image_path": image.path, **normal, **common, "family": "", "caption": ""}
        return {
            "image_path": str(self.path / record.image_file),
            "label": "abnormal",
            "label_index": int(LabelName.ABNORMAL),
            "mask_path": str(self.path / record.mask_file),
            "quality": record.quality,
            **common,
            "family": record.family,
            "caption": record.caption,
        }

    def _open(self) -> SampleStore:
        """Open the store, and check that all its samples are there and unchanged.

        Raises:
            ValueError: If they are not.
        """
        again = "Delete the folder; the next run renders the same samples again."
        if not (self.path / "store.json").exists() and (self.path / "settings.json").exists():
            msg = f"The kept split {str(self.path)!r} has the format of an earlier version. {again}"
            raise ValueError(msg)
        try:
            store = SampleStore.open(self.path)
            wanted = sum(image.anomalous for image in self.held_out)
            if [record.index for record in store.records] != list(range(wanted)):
                msg = f"It has {len(store.records)} of {wanted} samples."
                raise StoreError(msg)
            for record in store.records:
                if record.image_file:
                    store.check_file(record, record.image_file, record.image_hash)
                    store.check_file(record, record.mask_file, record.mask_hash)
        except StoreError as error:
            msg = f"The kept split {str(self.path)!r} is damaged. {error} {again}"
            raise ValueError(msg) from error
        return store

    def _render(self, generator: AnomalyGenerator) -> None:
        """Draw into a sibling folder, then rename it: another process finds the split complete or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder / f".{self.path.name}-{uuid.uuid4().hex}"
        try:
            self._fill(SampleStore.create(work, self._describe(generator)), generator)
            try:
                work.rename(self.path)
            except OSError:
                if not (self.path / "store.json").is_file():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _describe(self, generator: AnomalyGenerator) -> dict[str, Any]:
        """Return the settings of the store."""
        common = {
            "generator": generator.config,
            "files_digest": generator.files_digest,
            "prepare_digest": generator.prepare_digest,
            "weights_hash": generator.weights_hash,
            "split": self.split,
        }
        return {**common, "kept_split": json.loads(json.dumps(self.settings, default=str))}

    def _fill(self, store: SampleStore, generator: AnomalyGenerator) -> None:
        """Draw one defect on each image that is to get one, and keep all samples, rejected ones too."""
        images = [image for image in self.held_out if image.anomalous]
        root = Path(os.path.commonpath([Path(image.path).absolute().parent for image in self.held_out]))
        keeper = SampleKeeper(store.put, split=self.split, weights_hash=store.settings["weights_hash"])
        with store.writing():
            for batch in _show_progress(_batches(images), f"Drawing the synthetic {self.split} split"):
                sources = torch.stack([read_tensor(Path(image.path), "base") for image in batch])
                names = generator.name_images([image.path for image in batch])
                sample = generator(sources, seeds=[image.seed for image in batch], **names)
                check_drawn_on(
                    sample, sources, generator, [f"the held-out normal {image.path!r}" for image in batch],
                    "It could be a training image: use it for 'train' only, and another one for 'val' and 'test'.",
                )  # fmt: skip
                for n, image in enumerate(batch):
                    name = Path(image.path).absolute().relative_to(root).as_posix()
                    source = to_levels(sources[n])
                    index = len(store.records)
                    store.append(keeper.keep(sample, n, index=index, name=name, seed=image.seed, source=source))


def _batches(images: list[HeldOut]) -> list[list[HeldOut]]:
    """Group consecutive images of one size."""

    def size_of(image: HeldOut) -> tuple[int, int]:
        height, width, _ = read_size(Path(image.path), "base")
        return height, width

    return list(batch_by_size(images, size_of, count=_BATCH[0], most=_BATCH[1]))


def _show_progress(batches: list[list[HeldOut]], description: str) -> Iterator[list[HeldOut]]:
    """Yield the batches; show a progress bar once the work turns out to take more than two seconds."""
    started = time.monotonic()
    for done, batch in enumerate(batches):
        spent = time.monotonic() - started
        if done and spent / done * len(batches) > 2:
            rest = batches[done:]
            yield from track(rest, description, total=len(batches), completed=done)
            return
        yield batch
