"""The images a build works on, laid out in folders: every command reads them, and each reader reads them alike."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from anomalib_synth.building.look import Look
from anomalib_synth.building.looking import distinct
from anomalib_synth.defects import DEFECT, list_defects
from anomalib_synth.engines.convert import name_copies
from anomalib_synth.images import ImageReader, WhitePoint, digest_images, read_bytes
from anomalib_synth.images.agreement import find_difference
from anomalib_synth.store import encode_png
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anomalib_synth.building.looking import Looks
    from anomalib_synth.building.splitting import Split
    from anomalib_synth.defects import RealDefect

PARTS = ("train", "validation", "calibration")


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the images of a build are.

    Args:
        root: The folder that holds the others.
        learned: Files of real defects that are trained with.
        marks: Where those are marked, None for beside them.
        judged: Number of real defects that judge.
    """

    root: Path
    learned: list[Path]
    marks: Path | None
    judged: int

    @property
    def train(self) -> Path:
        """Good images to train with."""
        return self.root / "train"

    @property
    def validation(self) -> Path:
        """Good images to compare models on."""
        return self.root / "validation"

    @property
    def calibration(self) -> Path:
        """Good images that set and measure the threshold."""
        return self.root / "calibration"

    @property
    def defects(self) -> Path | None:
        """Real defects that judge, None for none."""
        return self.root / "defects" if self.judged else None


def list_real_defects(defects: Path, marks: Path | None, normals: Looks) -> tuple[dict[str, RealDefect], list[str]]:
    """Return the real defects by content, and what is odd about them.

    Raises:
        ValueError: If there is none, or one is among the good images.
    """
    listed = list_defects(defects, marks=marks)
    contents = digest_images([defect.image for defect in listed])
    good = distinct(normals.images)
    both = [(defect, good[content]) for defect, content in zip(listed, contents, strict=True) if content in good]
    if both:
        defect, look = both[0]
        msg = (
            f"`defects` must not hold images that are in `normals`, got {len(both)}, such as {str(defect.image)!r} "
            f"(there {look.name!r}). Take them out of one of the two."
        )
        raise ValueError(msg)
    found: dict[str, RealDefect] = {}
    for defect, content in zip(listed, contents, strict=True):
        found.setdefault(content, defect)
    copies = len(listed) - len(found)
    return found, [f"{copies} real defects are copies of others and count once."] if copies else []


def lay_out(
    looks: Looks,
    split: Split,
    root: Path,
    *,
    learned: Sequence[RealDefect] = (),
    judged: Sequence[RealDefect] = (),
    marks: Path | None = None,
) -> Folders:
    """Fill the folders of a build; what is there and right stays, what does not belong is taken away.

    A file that anomalib reads as it is becomes a second name of the same file, or a copy where the disk does not allow
    that; another is converted.

    Args:
        looks: The good images.
        split: What each is for.
        root: The folder.
        learned: Real defects to train with.
        judged: Real defects that judge.
        marks: Where they are marked.
    """
    images = distinct(looks.images)
    reader = ImageReader(None, looks.white_point)
    for part in PARTS:
        chosen = [images[content] for content in getattr(split, part)]
        _fill(root / part, {look.name: look.path for look in chosen}, _converted(chosen), reader)
    names = {f"{n:04d}_{defect.image.name}": defect.image for n, defect in enumerate(judged)}
    odd = {name for name, path in names.items() if find_difference(path)}
    _fill(root / "defects", names, odd, _reader_of(names.values(), looks.white_point))
    files = [defect.image for defect in learned]
    if any(find_difference(path) for path in files):
        _write_learned(learned, root / "learned", _reader_of(files, looks.white_point))
        files = sorted(path for path in (root / "learned").glob("*.png") if not path.stem.endswith("_mask"))
        marks = None
    return Folders(root=root, learned=files, marks=marks, judged=len(judged))


def _reader_of(files: Iterable[Path], white_point: WhitePoint) -> ImageReader:
    """Return a reader of defects by the white of the good images, or by their own where those had none."""
    from anomalib_synth.images import find_white_point

    return ImageReader(None, white_point if str(white_point) else find_white_point(files))


def _converted(looks: Sequence[Look]) -> set[str]:
    return {look.name for look in looks if look.difference}


def _fill(folder: Path, files: dict[str, Path], converted: set[str], reader: ImageReader) -> None:
    targets = {name: folder / name for name in files if name not in converted}
    copies = name_copies({name: files[name] for name in files if name in converted}, folder)
    taken = set(targets.values())
    for name, target in copies.items():
        targets[name] = target if target not in taken else target.with_name(f"{target.stem}_converted.png")
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in converted:
            data = encode_png(reader.decode(read_bytes(files[name])))
            if not (target.is_file() and target.read_bytes() == data):
                write_whole(target, data)
        else:
            link(files[name], target)
    wanted = {str(target) for target in targets.values()}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file() and str(path) not in wanted:
            path.unlink()


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the two are on different disks."""
    if target.is_file() and (source.samefile(target) or _is_same(source, target)):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        work = target.with_name(f".{target.name}.part")
        shutil.copy2(source, work)
        work.replace(target)


def _is_same(source: Path, target: Path) -> bool:
    return source.stat().st_size == target.stat().st_size and source.read_bytes() == target.read_bytes()


def _write_learned(defects: Sequence[RealDefect], folder: Path, reader: ImageReader) -> None:
    """Write converted copies of defects to train with, and their masks; of boxes and clicks no mark stays."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for n, defect in enumerate(defects):
        write_whole(folder / f"{n:04d}.png", encode_png(reader.decode(read_bytes(defect.image))))
        if defect.kind == "mask":
            mask: Any = (defect.read_marks() == DEFECT).astype("uint8") * 255
            with (folder / f"{n:04d}_mask.png").open("wb") as file:
                Image.fromarray(mask).save(file, "PNG")
