"""Renders one category of demo parts to disk, in the folder layout of MVTec AD."""

import json
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import Progress

from anomalib_synth.demo.defects import defective
from anomalib_synth.demo.parts import make_part, photograph
from anomalib_synth.demo.scene import View, draw_views, expose

RENDERER_VERSION = 1
MARKER_NAME = "demo_parts.json"
_PROGRESS_AFTER = 2.0


@dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """What one category folder holds; the folder's marker file records the same values.

    Args:
        kind (str): Part kind, the name of the folder.
        image_size (int): Side of the images in pixels.
        num_train (int): Good images in ``train/good``.
        num_test_good (int): Good images in ``test/good``.
        num_test_defect (int): Defective images in ``test/<defect>``, cycling through the defects.
        seed (int): Seed of all parts.
        version (int): Version of the renderer; images of two versions differ.
    """

    kind: str
    image_size: int
    num_train: int
    num_test_good: int
    num_test_defect: int
    seed: int
    version: int = RENDERER_VERSION

    def views(self, group: str, count: int) -> list[View]:
        """Return the views of one group of parts; no two groups share a part."""
        return draw_views(count, seed=[self.seed, zlib.crc32(self.kind.encode()), zlib.crc32(group.encode())])


def is_rendered(folder: Path, plan: RenderPlan) -> bool:
    """Return whether ``folder`` holds exactly the images of this plan.

    Args:
        folder (Path): Category folder.
        plan (RenderPlan): What is wanted.

    Returns:
        bool: ``True`` if it does, ``False`` if the folder does not exist.

    Raises:
        FileExistsError: If the folder holds something else, which is never overwritten.
    """
    if not folder.exists():
        return False
    remedy = "Choose another `root`, or delete that folder to render it again."
    try:
        found = json.loads((folder / MARKER_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError) as error:
        msg = (
            f"`root` must not hold other data under '{plan.kind}', but '{folder}' has no valid {MARKER_NAME}. {remedy}"
        )
        raise FileExistsError(msg) from error
    wanted = asdict(plan)
    if found != wanted:
        keys = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
        change = ", ".join(f"{key}={found.get(key) if isinstance(found, dict) else None}" for key in keys)
        want = ", ".join(f"{key}={wanted[key]}" for key in keys)
        msg = f"`root` must hold images of the same parameters: '{folder}' has {change}, wanted {want}. {remedy}"
        raise FileExistsError(msg)
    return True


def render_category(root: Path, plan: RenderPlan) -> Path:
    """Render a category unless it exists; other processes never see it half done.

    Args:
        root (Path): Folder of all categories; made if missing.
        plan (RenderPlan): What to render.

    Returns:
        Path: The category folder.

    Raises:
        FileExistsError: If the folder holds something else.
    """
    folder = root / plan.kind
    if is_rendered(folder, plan):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{plan.kind}-", dir=root))
    try:
        content = scratch / plan.kind
        _write_all(content, plan)
        (content / MARKER_NAME).write_text(json.dumps(asdict(plan), indent=2), encoding="utf-8")
        try:
            content.rename(folder)
        except OSError:
            if not is_rendered(folder, plan):  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _write_all(folder: Path, plan: RenderPlan) -> None:
    total = plan.num_train + plan.num_test_good + plan.num_test_defect
    started, progress = time.monotonic(), Progress(transient=True)
    task = progress.add_task(f"Rendering {plan.kind}", total=total)
    try:
        for write in _jobs(folder, plan):
            write()
            progress.advance(task)
            if not progress.live.is_started and time.monotonic() - started > _PROGRESS_AFTER:
                progress.start()
    finally:
        progress.stop()


def _jobs(folder: Path, plan: RenderPlan) -> Iterator[Callable[[], None]]:
    for split, count in (("train", plan.num_train), ("test", plan.num_test_good)):
        for index, view in enumerate(plan.views(f"{split}/good", count)):
            yield partial(_write_good, folder / split / "good" / f"{index:03d}.png", plan, view)
    for index, view in enumerate(plan.views("test/defect", plan.num_test_defect)):
        yield partial(_write_defect, folder, plan, view, index)


def _write_good(path: Path, plan: RenderPlan, view: View) -> None:
    _save(path, photograph(make_part(plan.kind, size=plan.image_size, view=view)))


def _write_defect(folder: Path, plan: RenderPlan, view: View, index: int) -> None:
    name, image, mask = defective(make_part(plan.kind, size=plan.image_size, view=view), index=index)
    _save(folder / "test" / name / f"{index:03d}.png", expose(image, view))
    _save(folder / "ground_truth" / name / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
