"""Draw docs/path.png: the path of the data, with what it looks like at each step on a rendered part.

python docs/draw_path.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import RuleBasedGenerator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from anomalib_synth.sample import AnomalySample

mpl.use("Agg")
INK, FRAME, FILL = "#1f2933", "#7b8794", "#f5f7fa"
# centre; width and height, in inches; title; text; a picture's room above the text
BOXES = {
    "normals": ((1.1, 2.0), (1.9, 2.5), "good images", "any datamodule or folder", 1.55),
    "generators": (
        (3.75, 2.0), (2.3, 2.5), "generators",
        "rules: 28 families\nreal defects, pasted\nwords: autoregressive\nwords: diffusion\n\n"
        "filter · score · mixture", 0,
    ),
    "sample": ((6.65, 2.0), (2.6, 2.5), "sample", "image, source, mask, quality,\ncaption, reason, provenance", 1.35),
    "store": ((9.75, 2.85), (2.6, 0.8), "once, kept: store", "generate · filter · review · export", 0),
    "callback": ((9.75, 1.15), (2.6, 0.8), "on the fly: callback", "into the batch or the augmenter", 0),
    "model": (
        (12.7, 2.0), (2.2, 2.5), "anomalib's models",
        "trained on defects:\nDraem, Dsr, Glass, UniNet,\nSupersimplenet, our RealNet\n\n"
        "threshold from defects:\nall others", 0,
    ),
    "evidence": (
        (15.25, 2.0), (1.7, 2.5), "did it help?", "calibrate\ncompare\n\nintervals,\ncontrols,\na verdict", 0
    ),
}  # fmt: skip
ARROWS = [
    ("normals", "generators"), ("generators", "sample"), ("sample", "store"), ("sample", "callback"),
    ("store", "model"), ("callback", "model"), ("store", "callback"), ("model", "evidence"),
]  # fmt: skip


def draw_sample() -> AnomalySample:
    """Draw a dent onto a rendered cap."""
    with tempfile.TemporaryDirectory() as root:
        DemoParts(root=root, category="printed_cap", num_train=6, num_test_good=1, num_test_defect=1).prepare_data()
        images = torch.stack(list(read_folder(Path(root) / "printed_cap" / "train", image_size=256, limit=6)))
    generator = RuleBasedGenerator(["stain"], strength=(0.9, 0.9), size=(0.3, 0.3)).prepare(images)
    return generator(images[:1], seeds=[3])


def draw_box(axes: Axes, name: str) -> None:
    """Draw a box with its title and text."""
    (x, y), (width, height), title, text, room = BOXES[name]
    corner, top = (x - width / 2, y - height / 2), y + height / 2
    axes.add_patch(mpl.patches.FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.05", fc=FILL, ec=FRAME))
    axes.text(x, top - 0.05, title, ha="center", va="top", weight="bold", color=INK, size=12)
    axes.text(x, top - 0.45 - room, text, ha="center", va="top", color=INK, size=9.5, linespacing=1.35)


def draw_arrow(axes: Axes, start: str, end: str) -> None:
    """Draw an arrow from the border of one box to that of another."""
    (x0, y0), (width0, height0), *_ = BOXES[start]
    (x1, y1), (width1, height1), *_ = BOXES[end]
    if x0 == x1:
        points = (x0, y0 - height0 / 2 - 0.08), (x1, y1 + height1 / 2 + 0.08)
    else:  # level with the smaller box
        level = y0 if height0 < height1 else y1
        points = (x0 + width0 / 2 + 0.08, level), (x1 - width1 / 2 - 0.08, level)
    axes.annotate("", points[1], points[0], arrowprops={"arrowstyle": "-|>", "color": FRAME, "lw": 1.6})


def show(axes: Axes, picture: torch.Tensor, x: float, y: float, side: float = 1.0) -> None:
    """Place a picture (C, H, W) in [0, 1] with its centre at (x, y)."""
    extent = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
    axes.imshow(picture.permute(1, 2, 0).expand(-1, -1, 3).numpy(), extent=extent, zorder=3)


def main() -> None:
    """Draw the boxes, the arrows and the pictures."""
    sample = draw_sample()
    figure = plt.figure(figsize=(16.2, 3.0))
    axes = figure.add_axes((0, 0, 1, 1))
    for name in BOXES:
        draw_box(axes, name)
    for start, end in ARROWS:
        draw_arrow(axes, start, end)
    show(axes, sample.source[0], 1.1, 2.02, 1.4)
    show(axes, sample.image[0], 6.0, 2.1, 1.2)
    show(axes, sample.mask[0], 7.3, 2.1, 1.2)
    axes.set(xlim=(0, 16.2), ylim=(0.5, 3.5), aspect="equal")
    axes.axis("off")
    out = Path(__file__).parent / "path.png"
    figure.savefig(out, dpi=100)
    print(f"{sample.caption[0]}; wrote {out}")


if __name__ == "__main__":
    main()
