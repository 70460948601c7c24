"""Writes a preview as a picture or as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_synth.report import preview_page, preview_picture
from anomalib_synth.report.preview_samples import count_drawings, count_sections, draw_sections
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from anomalib_synth.generators import AnomalyGenerator

_PAGES = {".html", ".htm"}


def check_preview(out: Path, generator: AnomalyGenerator, per_family: int) -> None:
    """Refuse a file that could not be written at the end, before anything is drawn.

    Raises:
        ValueError: If ``out`` has another suffix, is a folder, or its format cannot hold so large a picture.
    """
    suffix = out.suffix.lower()
    if suffix not in {*preview_picture.FORMATS, *_PAGES}:
        msg = f"`out` must end in .png, .jpg, .webp or .html, got {str(out)!r}."
        raise ValueError(msg)
    if out.is_dir():
        msg = f"`out` must be a file, but {str(out)!r} is a folder. Name another one."
        raise ValueError(msg)
    if suffix not in _PAGES:
        preview_picture.check_height(out, count_sections(generator), count_drawings(generator, per_family))


def write_preview(
    out: Path,
    generator: AnomalyGenerator,
    images: Sequence[torch.Tensor],
    *,
    per_family: int,
    seed: int,
    facts: Sequence[str] = (),
) -> list[str]:
    """Draw and write a preview; an existing file is replaced once the new one is complete.

    Args:
        out: The file, see :func:`check_preview`.
        generator: The generator, prepared.
        images: The normals, each (C, H, W) in [0, 1].
        per_family: Samples of each family; eight times as many of a generator that is not rule-based.
        seed: Seed of the samples.
        facts: Sentences for the page on how the images were read.

    Returns:
        Lines for the user: how many samples passed, and the reason for each that did not.
    """
    is_page = out.suffix.lower() in _PAGES
    size = preview_page.TILE if is_page else preview_picture.TILE
    sections = draw_sections(generator, images, per_family=per_family, seed=seed, size=size)
    if is_page:
        data = preview_page.make_page(generator, sections, facts).encode("utf-8", "replace")
    else:
        data = preview_picture.encode_picture(sections, out)
    write_whole(out, data)
    drawings = [drawing for section in sections for drawing in section.drawings]
    passed = sum(section.passed for section in sections)
    refused = [f"  rejected: {drawing.family}: {drawing.reason}" for drawing in drawings if drawing.reason]
    return [f"{passed} of {len(drawings)} samples passed the checks; wrote {out}.", *refused]
