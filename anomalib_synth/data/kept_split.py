"""A synthetic validation or test split: rendered once, kept on disk, the same from run to run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import PIL.Image
import torch
from anomalib.data.utils import LabelName

from anomalib_synth._version import __version__
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import digest_file, read_tensor
from anomalib_synth.images.formats import FORMATS
from anomalib_synth.progress import track
from anomalib_synth.store.rules import FLAG, TEXT, Form, Rule, between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anomalib_synth.generators import AnomalyGenerator

logger = logging.getLogger(__name__)

_BATCH = (8, 2**24)  # images and pixels drawn at once
_MANIFEST = "manifest.jsonl"
_ROW = Form(
    name="a sample",
    rules={"accepted": FLAG, "reason": TEXT, "family": TEXT, "caption": TEXT, "quality": between(0, 1)}
    | dict.fromkeys(("file", "source", "content", "seed", "attempt", "params"), Rule("anything", lambda _: True)),
)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One held-out normal image.

    Args:
        path: Its file.
        content: Digest of the file's bytes.
        seed: Seed of the defect drawn on it, from its content: moving the data set changes nothing.
        anomalous: Whether a defect is drawn on it.
    """

    path: str
    content: str
    seed: int
    anomalous: bool


@dataclass(frozen=True, kw_only=True)
class KeptSplit:
    """Held-out normals, a share of which is kept with synthetic defects under ``folder/<digest>``.

    Args:
        split: ``"val"`` or ``"test"``.
        held_out: The images, in an order that depends on their content and the seed only.
        folder: Folder for the splits of this data set.
        settings: All else that the pixels depend on, as plain data; its digest names the folder.
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
            normals: The training normals the generator is prepared with. Their file digests stand in for the prepare
                digest, which is a function of them and the configuration, so nothing is decoded to find a kept split.
            generator: Draws the defects.
            anomalous_ratio: Share of the held-out normals that get one; at least one image does, and one does not.
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
        """Where the split is kept."""
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return self.folder / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def load(self, prepared_generator: Callable[[], AnomalyGenerator]) -> pd.DataFrame:
        """Return the split's samples, rendering them first unless they are kept already.

        Args:
            prepared_generator: Gives the prepared generator; called only when there is something to draw.

        Raises:
            ValueError: If the kept files are damaged, or no draw was accepted.
        """
        if self.path.is_dir():
            logger.info("Synthetic %s split: reusing %s.", self.split, self.path)
        else:
            self._render(prepared_generator())
        rows = self._read_manifest()
        samples = [self._sample(image, rows.get(position)) for position, image in enumerate(self.held_out)]
        anomalous = sum(sample["label_index"] == LabelName.ABNORMAL for sample in samples)
        rejected = Counter(row["reason"] for row in rows.values() if not row["accepted"])
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
                f"`generator` must draw at least one accepted defect for the {self.split} split, all "
                f"{rejected.total()} were rejected: {dict(rejected.most_common(3))}. "
                "Use stronger or larger defects, looser `checks`, or other families."
            )
            raise ValueError(msg)
        return pd.DataFrame(samples)

    def _sample(self, image: HeldOut, row: dict[str, Any] | None) -> dict[str, Any]:
        """Return a row of anomalib's samples."""
        common = {"split": self.split, "source_path": image.path}
        if row is None or not row["accepted"]:
            normal = {"label": "normal", "label_index": int(LabelName.NORMAL), "mask_path": "", "quality": 1.0}
            return {"image_path": image.path, **normal, **common, "family": "", "caption": ""}
        return {
            "image_path": str(self.path / "image" / row["file"]),
            "label": "abnormal",
            "label_index": int(LabelName.ABNORMAL),
            "mask_path": str(self.path / "mask" / row["file"]),
            "quality": row["quality"],
            **common,
            "family": row["family"],
            "caption": row["caption"],
        }

    def _read_manifest(self) -> dict[int, dict[str, Any]]:
        """Return the drawn rows by position, having checked that their files are there."""
        try:
            lines = (self.path / _MANIFEST).read_text(encoding="utf-8").splitlines()
            rows = dict(enumerate(json.loads(line) for line in lines))
            for position, row in rows.items():
                if fault := _ROW.find_fault(row):
                    msg = f"line {position + 1} of {_MANIFEST} {fault}"
                    raise ValueError(msg)
                row["file"] = file_name(position)
                missing = [
                    d for d in ("image", "mask") if row["accepted"] and not (self.path / d / row["file"]).is_file()
                ]
                if missing:
                    raise FileNotFoundError(self.path / missing[0] / row["file"])
            if len(rows) != sum(image.anomalous for image in self.held_out):
                msg = f"{len(rows)} rows in {_MANIFEST}"
                raise ValueError(msg)
        except (OSError, ValueError, RecursionError) as error:
            msg = f"The kept split {str(self.path)!r} is damaged ({error}). Delete the folder to render it again."
            raise ValueError(msg) from error
        return rows

    def _render(self, generator: AnomalyGenerator) -> None:
        """Draw into a sibling folder, then rename: whoever comes second finds the split complete and reads it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder / f".{self.path.name}-{uuid.uuid4().hex}"
        try:
            for name in ("image", "mask"):
                (work / name).mkdir(parents=True)
            settings = {**self.settings, "prepare_digest": generator.prepare_digest}
            (work / "settings.json").write_text(json.dumps(settings, indent=1, default=str), encoding="utf-8")
            images = [image for image in self.held_out if image.anomalous]
            rows: list[dict[str, Any]] = []
            for batch in _show_progress(_batches(images), f"Drawing the synthetic {self.split} split"):
                rows += _draw(generator, batch, work, first=len(rows))
            text = "".join(json.dumps(row, default=str) + "\n" for row in rows)
            (work / _MANIFEST).write_text(text, encoding="utf-8")
            try:
                work.rename(self.path)
            except OSError:
                if not (self.path / _MANIFEST).is_file():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def file_name(position: int) -> str:
    """Return the name of the image and of the mask at a position of the manifest."""
    return f"{position:06d}.png"


def _batches(images: list[HeldOut]) -> list[list[HeldOut]]:
    """Group consecutive images of one size."""
    batches: list[list[HeldOut]] = []
    last = None
    for image in images:
        with PIL.Image.open(image.path, formats=FORMATS) as file:
            size = file.size
        limit = max(1, min(_BATCH[0], _BATCH[1] // (size[0] * size[1])))
        if size != last or len(batches[-1]) >= limit:
            batches.append([])
        batches[-1].append(image)
        last = size
    return batches


def _draw(generator: AnomalyGenerator, batch: list[HeldOut], work: Path, *, first: int) -> list[dict[str, Any]]:
    """Draw one defect on each image, save the accepted ones, and return the rows of the manifest."""
    sources = torch.stack([read_tensor(Path(image.path), "base") for image in batch])
    names = generator.name_images([image.path for image in batch])
    sample = generator(sources, seeds=[image.seed for image in batch], **names)
    rows = []
    for n, image in enumerate(batch):
        accepted = bool(sample.accepted[n])
        if accepted and not torch.equal(sample.source[n].cpu(), sources[n]):
            msg = (
                f"`generator` {type(generator).__name__} gave a sample of another image than the held-out normal "
                f"{image.path!r}, which could be a training image. Use it for 'train' only, and another one for "
                "'val' and 'test'."
            )
            raise ValueError(msg)
        if accepted:
            _save_png(sample.image[n].permute(1, 2, 0), work / "image" / file_name(first + n))
            _save_png(sample.mask[n, 0], work / "mask" / file_name(first + n))
        provenance = sample.provenance[n]
        rows.append(
            {
                "file": file_name(first + n) if accepted else "",
                "source": image.path,
                "content": image.content,
                "seed": image.seed,
                "accepted": accepted,
                "reason": sample.reason[n],
                "family": provenance.family,
                "caption": sample.caption[n],
                "quality": float(sample.quality[n]),
                "attempt": provenance.attempt,
                "params": provenance.params,
            }
        )
    return rows


def _save_png(image: torch.Tensor, path: Path) -> None:
    levels = (image.detach().cpu().float() * 255).round().to(torch.uint8)
    PIL.Image.fromarray(np.ascontiguousarray(levels.numpy())).save(path)


def _show_progress(batches: list[list[HeldOut]], description: str) -> Iterator[list[HeldOut]]:
    """Yield the batches, with a progress bar once the whole looks like more than two seconds of work."""
    started = time.monotonic()
    for done, batch in enumerate(batches):
        spent = time.monotonic() - started
        if done and spent / done * len(batches) > 2:
            rest = batches[done:]
            yield from track(rest, description, total=len(batches), completed=done)
            return
        yield batch
