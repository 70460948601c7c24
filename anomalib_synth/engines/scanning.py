"""Finding the normals of a run: every file read once, the unreadable ones with a reason."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.engines.inputs import SUFFIXES, UnreadableInputError, decode_image, read_bytes
from anomalib_synth.engines.plan import Normal
from anomalib_synth.store import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The inputs of a run.

    Args:
        normals: The readable images, sorted by name.
        unreadable: Reason by name of the others.
        digest: Digest of names and contents of all files, readable or not.
        contents: Digest of each file's bytes by name, "" where they could not be read.
    """

    normals: list[Normal]
    unreadable: dict[str, str]
    digest: str
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """What the settings of a store say of the inputs."""
        return {
            "files": len(self.normals) + len(self.unreadable),
            "digest": self.digest,
            "unreadable": self.unreadable,
        }


def list_folder(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder, searched recursively, by their relative path, sorted.

    Raises:
        ValueError: If the folder does not exist or holds no file with an image's suffix.
    """
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        state = "holds none" if folder.is_dir() else "is no folder"
        known = ", ".join(sorted(SUFFIXES))
        msg = f"`normals` must be a folder with images ({known}), got {str(folder)!r}, which {state}."
        raise ValueError(msg)
    return _sorted_by_name((path.relative_to(folder).as_posix(), path) for path in found)


def list_datamodule(config: Path) -> dict[str, Path]:
    """Return the training normals of an anomalib datamodule, by their path relative to their common folder.

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
    return _sorted_by_name((path.relative_to(root).as_posix(), path) for path in paths)


def scan(
    files: dict[str, Path],
    *,
    image_size: int | None,
    workers: int,
    known_unreadable: dict[str, str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Scan:
    """Read every file; decode it too, to know now what cannot be used.

    Args:
        files: File by name.
        image_size: Side in pixels that images are resized to, None for their native size.
        workers: Number of threads.
        known_unreadable: What an earlier scan of the same files found: nothing is decoded then, and whether they are
            the same files shows in the digest.
        advance: Called after each file.
    """

    def read(item: tuple[str, Path]) -> tuple[str, str]:
        try:
            data = read_bytes(item[1])
        except UnreadableInputError as error:
            return "", str(error)
        content, reason = hash_bytes(data), ""
        if known_unreadable is None:
            try:
                decode_image(data, image_size=image_size)
            except UnreadableInputError as error:
                reason = str(error)
        return content, reason

    digest = blake2b(digest_size=16)
    normals: list[Normal] = []
    unreadable: dict[str, str] = {}
    contents: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for (name, path), (content, found) in zip(files.items(), pool.map(read, files.items()), strict=True):
            reason = found if known_unreadable is None else known_unreadable.get(name, found)
            contents[name] = content
            digest.update(f"{name}\0{content}\0".encode())
            if reason:
                unreadable[name] = reason
            else:
                normals.append(Normal(path=path.absolute(), name=name, content=content))
            advance()
    return Scan(normals=normals, unreadable=unreadable, digest=digest.hexdigest(), contents=contents)


def require_readable(found: Scan) -> None:
    """Refuse inputs of which none can be read."""
    if not found.normals:
        examples = "; ".join(f"{name!r}: {reason}" for name, reason in list(found.unreadable.items())[:3])
        msg = f"`normals` must hold a readable image, none of the {len(found.unreadable)} is: {examples}."
        raise ValueError(msg)


def _sorted_by_name(items: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Sort by name, the same on every platform; bytes that are no UTF-8 are written with a backslash."""
    return dict(sorted((name.encode("utf-8", "backslashreplace").decode(), path) for name, path in items))


def _build_datamodule(config: Path) -> Any:
    """Build the datamodule that a YAML file describes."""
    import yaml
    from anomalib.data import AnomalibDataModule
    from jsonargparse import ArgumentError, ArgumentParser

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
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=AnomalibDataModule)
    try:
        return parser.instantiate_classes(parser.parse_object({"data": described})).data
    except ArgumentError as error:
        msg = f"`datamodule` {str(config)!r} does not describe an anomalib datamodule: {error}"
        raise ValueError(msg) from error
