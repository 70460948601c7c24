"""Lays out pictures of samples for the documentation: the place of the defect before and after, enlarged, named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anomalib_synth.report.preview_samples import Drawing

TILE, GAP, BETWEEN, TEXT = 152, 4, 22, 44


def save_pairs(drawings: Sequence[Drawing], out: Path, *, titles: Sequence[str], columns: int = 3) -> None:
    """Save one picture of all samples.

    Args:
        drawings: The samples, with tiles of ``TILE`` pixels.
        out: PNG file to write.
        titles: What stands in larger letters under each; its caption follows.
        columns: Samples a line.

    Raises:
        ValueError: If a sample failed its checks: it would show nothing.
    """
    failed = [drawing.text for drawing in drawings if drawing.reason]
    if failed:
        msg = f"`drawings` must all have passed the checks, got {failed}. Choose other seeds."
        raise ValueError(msg)
    lines = -(-len(drawings) // columns)
    width = 2 * TILE + GAP
    size = columns * width + (columns - 1) * BETWEEN, lines * (TILE + TEXT)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for position, (drawing, title) in enumerate(zip(drawings, titles, strict=True)):
        left, top = position % columns * (width + BETWEEN), position // columns * (TILE + TEXT)
        canvas.paste(drawing.tiles["before"], (left, top))
        canvas.paste(drawing.tiles["after"], (left + TILE + GAP, top))
        pen.text((left, top + TILE + 2), title, fill="#1b1f27", font=ImageFont.load_default(15))
        pen.text((left, top + TILE + 21), drawing.caption, fill="#5d6675", font=ImageFont.load_default(11))
    canvas.save(out, optimize=True)
