"""Finds the normals of a run: every file is read once, and unreadable ones get a reason."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anomalib_synth.host.from_config import build_object
from anomalib_synth.images import (
    ImageReader,
    Listing,
    Normal,
    UnreadableImageError,
    WhitePoint,
    hash_bytes,
    list_images,
    read_bytes,
)
from anomalib_synth.images.listing import is_mask_beside, sort_by_name
from anomalib_synth.images.reading import measure_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anomalib_synth.images.white_point import Brightness


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The inputs of a run.

    Args:
        normals: The readable images, sorted by name.
        unreadable: Reason by name of the others.
        digest: Digest of names and contents of all files, readable or not.
        reader: How the normals are read.
        contents: Digest of each file's bytes by name, "" where they could not be read.
    """

    normals: list[Normal]
    unreadable: dict[str, str]
    digest: str
    reader: ImageReader
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """What is kept of the inputs in the settings of a store."""
        return {
            "files": len(self.normals) + len(self.unreadable),
            "digest": self.digest,
            "unreadable": self.unreadable,
            "white_point": self.reader.white_point.to_dict(),
        }


def list_datamodule(config: Path) -> Listing:
    """Return the training normals of an anomalib datamodule, by their path relative to their common folder.

    A mask ``000_mask.png`` that lies beside its image is left out, though the datamodule itself takes it for an image.

    Args:
        config: YAML file with ``class_path`` and ``init_args`` of a datamodule, or with them under ``data``, as in a
            config of ``anomalib train``.

    Raises:
        ValueError: If the file describes no datamodule, or the datamodule has no normal training images in files.
    """
    datamodule = _build_datamodule(config)
    datamodule.prepare_data()
    datamodule.setup("fit")
    samples = getattr(getattr(datamodule, "train_data", None), "samples", None)
    if samples is None or not {"label_index", "image_path"} <= set(samples.columns):
        msg = f"`datamodule` {str(config)!r} must have training images in files, {type(datamodule).__name__} has none."
        raise ValueError(msg)
    paths = sorted({Path(path).absolute() for path in samples[samples.label_index == 0].image_path})
    if not paths:
        msg = f"`datamodule` {str(config)!r} must have normal training images, got none. Check its normal_dir."
        raise ValueError(msg)
    root = Path(os.path.commonpath([path.parent for path in paths]))
    stems: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        stems[path.parent].add(path.stem)
    masks = {path for path in paths if is_mask_beside(path.stem, stems[path.parent])}
    return Listing(_name(set(paths) - masks, root), argument="datamodule", masks=_name(masks, root))


def _name(paths: Iterable[Path], root: Path) -> dict[str, Path]:
    return sort_by_name((path.relative_to(root).as_posix(), path) for path in paths)


def scan(
    files: dict[str, Path],
    *,
    reader: ImageReader,
    workers: int,
    known: dict[str, Any] | None = None,
    foreign: dict[str, str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Scan:
    """Read and decode every file, to find those that cannot be used, and the white point.

    Args:
        files: File by name.
        reader: Size of the images, and the white point where the user gave one.
        workers: Number of threads.
        known: The summary of an earlier scan of the same files. With it nothing is decoded; the digest shows whether
            the files are still the same.
        foreign: Reason by name of the images whose format is not read.
        advance: Called after each file.
    """

    def read(item: tuple[str, Path]) -> tuple[str, str, Brightness | None]:
        content = ""
        try:
            data = read_bytes(item[1])
            content = hash_bytes(data)
            if known is not None:
                return content, "", None
            brightness = measure_image(data)
            if brightness is None:
                reader.decode(data)  # images of more than 8 bits follow below, once white is known
        except UnreadableImageError as error:
            return content, str(error), None
        return content, "", brightness

    digest = blake2b(digest_size=16)
    normals: list[Normal] = []
    unreadable: dict[str, str] = {}
    contents: dict[str, str] = {}
    deep: list[tuple[Normal, Brightness]] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for (name, path), (content, found, brightness) in zip(
            files.items(), pool.map(read, files.items()), strict=True
        ):
            reason = found if known is None else known["unreadable"].get(name, found)
            contents[name] = content
            digest.update(f"{name}\0{content}\0".encode())
            if reason:
                unreadable[name] = reason
            else:
                normals.append(Normal(path=path.absolute(), name=name, content=content))
                if brightness is not None:
                    deep.append((normals[-1], brightness))
            advance()
    reader = replace(reader, white_point=_choose_white(reader.white_point, known, [found for _, found in deep]))
    for normal, _ in deep:  # white is known only now
        try:
            reader.decode(read_bytes(normal.path))
        except UnreadableImageError as error:
            unreadable[normal.name] = str(error)
    normals = [normal for normal in normals if normal.name not in unreadable]
    for name in foreign or {}:
        contents[name] = ""
        digest.update(f"{name}\0\0".encode())
    unreadable = dict(sorted({**unreadable, **(foreign or {})}.items()))
    return Scan(normals=normals, unreadable=unreadable, digest=digest.hexdigest(), reader=reader, contents=contents)


def _choose_white(given: WhitePoint, known: dict[str, Any] | None, deep: list[Brightness]) -> WhitePoint:
    """Return the white point: the user's, else that of the earlier scan, else that of the images."""
    found = WhitePoint.from_dict(known.get("white_point") or {}) if known else WhitePoint.find(deep)
    if given == WhitePoint():
        return found
    kinds = found if known else WhitePoint.find([replace(each, brightest=1.0, stated=None) for each in deep])
    return given.only(kinds)


def require_readable(found: Scan) -> None:
    """Refuse inputs of which none can be read.

    Raises:
        ValueError: If there is none; the message has the reasons of the first three.
    """
    if not found.normals:
        examples = "; ".join(f"{name!r}: {reason}" for name, reason in list(found.unreadable.items())[:3])
        msg = f"`normals` must hold a readable image, none of the {len(found.unreadable)} is: {examples}."
        raise ValueError(msg)


def _build_datamodule(config: Path) -> Any:
    """Build the datamodule that a YAML file describes."""
    import yaml
    from anomalib.data import AnomalibDataModule

    try:
        described = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"`datamodule` must be a readable YAML file, got {str(config)!r}: {error}."
        raise ValueError(msg) from error
    if isinstance(described, dict) and "data" in described:
        described = described["data"]
    if not isinstance(described, dict) or "class_path" not in described:
        msg = f"`datamodule` must be a YAML file with `class_path` and `init_args` of a datamodule, {config} has none."
        raise ValueError(msg)
    return build_object(AnomalibDataModule, described, f"`datamodule` {str(config)!r}")


def list_inputs(normals: Path | None, datamodule: Path | None, out: Path) -> Listing:
    """Return the input files by name.

    Raises:
        ValueError: If neither or both of ``normals`` and ``datamodule`` are given, or ``out`` lies within ``normals``.
    """
    if (normals is None) == (datamodule is None):
        given = "neither" if normals is None else "both"
        msg = f"Give one of `normals` (a folder of good images) and `datamodule` (a YAML file), got {given}."
        raise ValueError(msg)
    if normals is None:
        return list_datamodule(cast("Path", datamodule))
    if out.resolve().is_relative_to(normals.resolve()):
        msg = (
            f"`out` must lie outside `normals`, got {str(out)!r} inside {str(normals)!r}: "
            "the samples would be taken for normals."
        )
        raise ValueError(msg)
    return list_images(normals)
