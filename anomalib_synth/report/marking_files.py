"""The images to mark, and the files that keep their marks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.defects.no_defect import read_no_defect, write_no_defect
from anomalib_synth.images import (
    MASK_ENDING,
    SUFFIXES,
    UnreadableImageError,
    describe_left_out,
    hash_bytes,
    list_images,
    read_bytes,
)
from anomalib_synth.store.files import write_whole
from anomalib_synth.store.locking import exclusive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

_GOOD = "good"
_REGION = "region"
_MASK_FOLDERS = ("masks", "ground_truth")
_LOCK = ".marking.lock"
_WAIT = 10.0


@dataclass(frozen=True, kw_only=True)
class ImageToMark:
    """An image, and where its marks are kept.

    Args:
        id: Its id in URLs.
        name: Its path relative to the folder of images, with forward slashes.
        path: The image file.
        stem: Path of its marks, without ``_mask.png`` and ``.json``.
        folder_type: The type of defect that its folder names.
        is_among_masks: Whether its marks are in a folder of masks, where a mask may have the same name as the image.
    """

    id: str
    name: str
    path: Path
    stem: Path
    folder_type: str
    is_among_masks: bool = False

    @property
    def mask(self) -> Path:
        """The mask that is written."""
        return self.stem.with_name(f"{self.stem.name}_mask.png")

    @property
    def document(self) -> Path:
        """The LabelMe file."""
        return self.stem.with_name(f"{self.stem.name}.json")

    @property
    def masks(self) -> list[Path]:
        """All paths that its mask may have; the first one is written."""
        suffixes = sorted(SUFFIXES)
        names = [f"{self.stem.name}_mask{suffix}" for suffix in suffixes if suffix != ".png"]
        names += [f"{self.stem.name}{suffix}" for suffix in suffixes] if self.is_among_masks else []
        return [self.mask, *map(self.stem.with_name, names)]


@dataclass(frozen=True, kw_only=True)
class MarkedFolder:
    """A folder of images and the folder of their marks.

    Args:
        images: The folder of images.
        out: The folder of the marks, often the same.
        listed: The images by id, in the order of their names.
        left_out: Name and reason of each image that is left out.
        of_regions: Whether regions for drawn defects are painted on good images, instead of marking defects.
    """

    images: Path
    out: Path
    listed: dict[str, ImageToMark]
    left_out: dict[str, str] = field(default_factory=dict)
    of_regions: bool = False

    @classmethod
    def open(cls, images: Path, out: Path | None = None, *, of_regions: bool = False) -> MarkedFolder:
        """List the images of a folder.

        Raises:
            ValueError: If there are none, their masks lie elsewhere, or the marks cannot be written.
        """
        listing = list_images(images, "regions" if of_regions else "images", with_masks=True)
        folder = images if out is None else out
        found, left_out, masks = {}, dict(listing.foreign), 0
        stems: dict[Path, str] = {}
        for name, path in listing.files.items():
            relative = path.relative_to(images)
            if reason := _find_reason(path, relative, images, folder, of_regions=of_regions):
                if reason == _IS_MASK:
                    masks += 1
                else:
                    left_out[name] = reason
                continue
            stem = folder / relative.with_suffix("")
            if stem in stems:
                left_out[name] = f"it would share its marks with {stems[stem]!r}; rename one of them"
                continue
            stems[stem] = name
            key = hash_bytes(name.encode())[:16]
            folder_type = _REGION if of_regions else path.parent.resolve().name or "defect"
            found[key] = ImageToMark(
                id=key,
                name=name,
                path=path,
                stem=stem,
                folder_type=folder_type,
                is_among_masks=out is not None and not {*out.resolve().parts}.isdisjoint(_MASK_FOLDERS),
            )
        if not found:
            argument, what = ("regions", "good images") if of_regions else ("images", "images of defects")
            reasons = " ".join(describe_left_out(left_out, argument))
            if masks:
                reasons += f" {masks} of its files count as masks by name or folder; rename those that are none."
            msg = f"`{argument}` must be a folder with {what}, got {str(images)!r}, which has none. {reasons.strip()}"
            raise ValueError(msg)
        if out is None:
            _check_masks_elsewhere(images, found.values())
        opened = cls(images=images, out=folder, listed=found, left_out=left_out, of_regions=of_regions)
        opened.check_writable()
        return opened

    def check_writable(self) -> None:
        """Refuse a folder in which no mark can be saved.

        Raises:
            ValueError: If it cannot be written to.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with self.locked():
                self.read_no_defect()
        except OSError as error:
            msg = (
                f"`out` must be a folder that can be written to, got {str(self.out)!r} ({error.strerror or error}). "
                "Give another one with `--out`."
            )
            raise ValueError(msg) from error

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock of the marks, so that there is one writer at a time, also with several servers."""
        return exclusive(self.out / _LOCK, wait=_WAIT)

    def read_no_defect(self) -> set[str]:
        """Return the names of the images that a person called free of defects.

        Raises:
            ValueError: If the file with these names is damaged.
        """
        return read_no_defect(self.out)

    def write_no_defect(self, names: Iterable[str]) -> None:
        """Write down the names of the images that a person called free of defects."""
        write_no_defect(self.out, names, self.images)

    def read(self, image: ImageToMark) -> dict[Path, bytes]:
        """Return the bytes of the files that mark an image.

        Raises:
            ValueError: If one cannot be read.
        """
        found = {}
        for path in (*image.masks, image.document):
            if path.is_file():
                try:
                    found[path] = read_bytes(path) if path.stat().st_size else b""
                except UnreadableImageError as error:
                    msg = f"{str(path)!r} {error}. Mend it, or take it away."
                    raise ValueError(msg) from error
        return found

    def write(self, image: ImageToMark, files: Mapping[Path, bytes | None]) -> None:
        """Write files that mark an image, each whole or not at all; None deletes one.

        Raises:
            ValueError: If a link would lead them out of the folder, or they cannot be written.
        """
        folder = image.stem.parent
        if not folder.resolve().is_relative_to(self.out.resolve()):
            msg = (
                f"{str(folder)!r} is a link that leads out of {str(self.out)!r}, so nothing was saved. Give its target."
            )
            raise ValueError(msg)
        for path, data in files.items():
            try:
                if data is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, data)
            except OSError as error:
                msg = f"{str(path)!r} cannot be written ({error.strerror or error}). Mend that, then try again."
                raise ValueError(msg) from error


_IS_MASK = "a mask"


def _find_reason(path: Path, relative: Path, images: Path, out: Path, *, of_regions: bool) -> str:
    """Return why a file cannot be marked, ``""`` if it can."""
    if relative.stem.endswith(MASK_ENDING):
        return _IS_MASK
    if not of_regions and _GOOD in relative.parts[:-1]:
        return "it lies in a folder `good`, so it has no defect"
    own = images.resolve()
    if out.resolve() != own and own in out.resolve().parents and out.resolve() in path.resolve().parents:
        return _IS_MASK
    if set(_MASK_FOLDERS) & set(relative.parts[:-1]):
        return _IS_MASK
    return ""


def _check_masks_elsewhere(images: Path, found: Iterable[ImageToMark]) -> None:
    """Refuse to start a second set of marks where an existing one would take precedence.

    Raises:
        ValueError: If there is one; the message names its folder.
    """
    whole = images.resolve()
    names = {Path(image.name).with_suffix("") for image in found}
    for folder in (whole.parent / "ground_truth", whole.parent.parent / "ground_truth" / whole.name, whole / "masks"):
        held = folder.rglob("*") if folder.is_dir() else ()
        relative = (each.relative_to(folder).with_suffix("") for each in held if each.suffix.lower() in SUFFIXES)
        if any(each.with_name(each.name.removesuffix(MASK_ENDING)) in names for each in relative):
            msg = (
                f"`out` must be given: the masks of `images` {str(images)!r} are in {str(folder)!r}. Give `--out` that "
                "folder to go on with them, or another one to begin anew."
            )
            raise ValueError(msg)
