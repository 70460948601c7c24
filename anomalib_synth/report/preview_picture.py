"""The preview as one picture: a block for each family, with its name at every sample."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from anomalib_synth.report.preview_tiles import TILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.report.preview_samples import Drawing, Section

TILE = 160
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_TALLEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels that the formats can hold
_PAD, _GAP, _BETWEEN = 10, 4, 28
_HEAD, _TITLE, _LINE, _AFTER = 20, 26, 16, 8
_INK, _SOFT, _RULE, _BAD = "#1b1f27", "#5d6675", "#d9dde4", "#b3261e"
_WIDTH = len(TILES) * TILE + (len(TILES) - 1) * _GAP  # of a sample


@dataclass(frozen=True)
class Text:
    """A line of text and its place; long text was cut or wrapped before."""

    x: int
    y: int
    text: str
    size: int = 12
    colour: str = _INK


@dataclass
class Layout:
    """The places of texts, pictures and lines.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        texts: The lines of text.
        tiles: Left, top and picture of each tile.
        rules: Vertical positions of the lines between the blocks.
    """

    width: int
    height: int = 0
    texts: list[Text] = field(default_factory=list)
    tiles: list[tuple[int, int, Image.Image]] = field(default_factory=list)
    rules: list[int] = field(default_factory=list)


def lay_out(sections: Sequence[Section]) -> Layout:
    """Place the samples, two in a row, beneath the name of their family."""
    columns = 2 if any(len(section.drawings) > 1 for section in sections) else 1
    layout = Layout(2 * _PAD + columns * _WIDTH + (columns - 1) * _BETWEEN)
    lefts = [_PAD + column * (_WIDTH + _BETWEEN) for column in range(columns)]
    for left in lefts:
        for position, words in enumerate(TILES.values()):
            layout.texts.append(Text(left + position * (TILE + _GAP), _PAD // 2, words, colour=_SOFT))
    y = _HEAD
    for section in sections:
        layout.rules.append(y)
        layout.texts.append(Text(_PAD, y + 4, section.name, 16))
        note = (
            f"{section.passed} of {len(section.drawings)} passed the checks{'. ' * bool(section.about)}{section.about}"
        )
        note_left = _PAD + int(_measure(section.name, 16)) + 12
        layout.texts.append(Text(note_left, y + 8, _cut(note, layout.width - note_left - _PAD), colour=_SOFT))
        y += _TITLE
        for start in range(0, len(section.drawings), columns):
            line = section.drawings[start : start + columns]
            tall = max(_place(layout, drawing, left, y) for drawing, left in zip(line, lefts, strict=False))
            y += tall + _AFTER
    layout.height = y
    return layout


def _place(layout: Layout, drawing: Drawing, left: int, top: int) -> int:
    """Place a sample; return its height."""
    tallest = max(tile.height for tile in drawing.tiles.values())
    for position, name in enumerate(TILES):
        if name in drawing.tiles:
            layout.tiles.append((left + position * (TILE + _GAP), top, drawing.tiles[name]))
    if not drawing.reason:
        layout.texts.append(Text(left, top + tallest + 1, _cut(drawing.text, _WIDTH)))
        return tallest + _LINE
    beside = left + drawing.tiles["source"].width + 2 * _GAP
    lines = list(_wrap(drawing.text, left + _WIDTH - beside))
    for number, words in enumerate(lines):
        layout.texts.append(Text(beside, top + number * _LINE, words, colour=_BAD))
    return max(tallest, len(lines) * _LINE)


def paint(layout: Layout) -> Image.Image:
    """Return the picture of a layout."""
    canvas = Image.new("RGB", (layout.width, layout.height), "white")
    pen = ImageDraw.Draw(canvas)
    for y in layout.rules:
        pen.line([(_PAD, y), (layout.width - _PAD, y)], fill=_RULE)
    for left, top, tile in layout.tiles:
        canvas.paste(tile, (left, top))
    for text in layout.texts:
        pen.text((text.x, text.y), text.text, fill=text.colour, font=ImageFont.load_default(text.size))
    return canvas


def encode_picture(sections: Sequence[Section], out: Path) -> bytes:
    """Return the picture encoded in the format of the file's suffix."""
    buffer = io.BytesIO()
    paint(lay_out(sections)).save(buffer, FORMATS[out.suffix.lower()], quality=92)
    return buffer.getvalue()


def check_height(out: Path, sections: int, drawings: int) -> None:
    """Refuse, before anything is drawn, a picture that its format cannot hold.

    Args:
        out: The file; its name ends in one of ``FORMATS``.
        sections: Number of blocks.
        drawings: Number of samples in each.

    Raises:
        ValueError: If the picture would be too high.
    """
    lines = -(-drawings // 2)
    height = _HEAD + sections * (_TITLE + lines * (TILE + _LINE + _AFTER))
    limit = _TALLEST.get(out.suffix.lower())
    if limit is not None and height > limit:
        msg = (
            f"`per_family` must give a picture of at most {limit} pixels' height for {out.suffix}, got up to {height}. "
            "Lower it, or write .png or .html."
        )
        raise ValueError(msg)


def _measure(text: str, size: int = 12) -> float:
    return ImageFont.load_default(size).getlength(text)


def _cut(text: str, width: float) -> str:
    """Return a text, shortened where it is too long."""
    if _measure(text) <= width:
        return text
    while text and _measure(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


def _wrap(text: str, width: float) -> Iterator[str]:
    """Yield the lines of a text."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _measure(longer) > width:
            yield _cut(line, width)
            longer = word
        line = longer
    yield _cut(line, width)
