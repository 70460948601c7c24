"""Draw docs/discriminative_padim.png: the path through the detector, and what its maps show on a rendered part.

python docs/draw_discriminative_padim.py
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import torch
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from matplotlib import pyplot as plt

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import DiscriminativePadim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

mpl.use("Agg")
INK, FRAME, FILL, LEARNED = "#1f2933", "#7b8794", "#f5f7fa", "#dbe7f5"
# centre; width and height, in inches; title; text; whether it is learned
BOXES = {
    "image": ((1.0, 3.2), (1.7, 1.0), "image", "at 160 and 256 px", False),
    "features": (
        (3.5, 3.2), (2.3, 1.3), "features x",
        "frozen backbone, three layers,\n3 x 3 means, one grid of\nstride 8", False,
    ),
    "gaussian": (
        (6.5, 2.2), (2.5, 1.3), "Gaussian a position",
        "fitted to the good images;\nw = L⁻¹(x - m), in training\nwithout the image's own", False,
    ),
    "normality": ((9.6, 1.6), (2.0, 0.8), "normality N", "|w|: how far from normal", False),
    "residual_head": ((9.6, 2.8), (2.0, 0.8), "head on w", "two small convolutions", True),
    "feature_head": ((9.6, 4.0), (2.0, 0.8), "head on x", "two small convolutions", True),
    "defect": ((12.1, 3.4), (1.7, 1.1), "defect H", "mean of the\nfour heads", False),
    "score": (
        (14.6, 2.6), (2.3, 1.6), "map N + H, score",
        "each in deviations of good\nimages that trained neither;\nlargest N and largest H,\nstandardised, added",
        False,
    ),
}  # fmt: skip
ARROWS = [
    ("image", "features"), ("features", "gaussian"), ("features", "feature_head"), ("gaussian", "normality"),
    ("gaussian", "residual_head"), ("residual_head", "defect"), ("feature_head", "defect"), ("defect", "score"),
    ("normality", "score"),
]  # fmt: skip


def train(folder: Path) -> tuple[DiscriminativePadim, DemoParts]:
    """Train on a few rendered parts with drawn defects."""
    seed_everything(0, verbose=False)
    data = DemoParts(
        root=folder, category="circuit_board", num_train=40, num_test_good=2, num_test_defect=12, train_batch_size=8
    )
    model = DiscriminativePadim(evaluator=False, visualizer=False, post_processor=False)
    engine = Engine(
        callbacks=[SynthesisCallback(RuleBasedGenerator(), grid_every_n_epochs=0)], default_root_dir=folder,
        logger=False, accelerator="cpu", limit_val_batches=0, max_epochs=-1, max_steps=200,
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    return model.eval(), data


def draw_box(axes: Axes, name: str) -> None:
    """Draw a box with its title and text."""
    (x, y), (width, height), title, text, learned = BOXES[name]
    box = mpl.patches.FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.05",
        fc=LEARNED if learned else FILL,
        ec=FRAME,
    )
    axes.add_patch(box)
    axes.text(x, y + height / 2 - 0.05, title, ha="center", va="top", weight="bold", color=INK, size=12)
    axes.text(x, y + height / 2 - 0.4, text, ha="center", va="top", color=INK, size=9.5, linespacing=1.3)


def draw_arrow(axes: Axes, start: str, end: str) -> None:
    """Draw an arrow from the right border of one box to the left border of another."""
    (x0, y0), (width0, height0), *_ = BOXES[start]
    (x1, y1), (width1, height1), *_ = BOXES[end]
    leave = y0 + max(-height0 / 3, min(height0 / 3, y1 - y0))
    arrive = y1 + max(-height1 / 3, min(height1 / 3, y0 - y1))
    points = (x0 + width0 / 2 + 0.08, leave), (x1 - width1 / 2 - 0.08, arrive)
    axes.annotate("", points[1], points[0], arrowprops={"arrowstyle": "-|>", "color": FRAME, "lw": 1.6})


def show_maps(figure: mpl.figure.Figure, model: DiscriminativePadim, data: DemoParts) -> None:
    """Show defective parts the model has not seen, their masks and maps, side by side."""
    batch = next(iter(data.test_dataloader()))
    rows = batch.gt_label.nonzero().flatten()[[1, 7]]
    with torch.inference_mode():
        normality, defect = model.model.group_maps(model.model.see(model.pre_processor.transform(batch.image[rows])))
    places = iter(range(10))
    for row in range(2):
        panels = {
            "image": batch.image[rows[row]].permute(1, 2, 0), "truth": batch.gt_mask[rows[row]].float(),
            "N": normality[row, 0], "H": defect[row, 0], "N + H": normality[row, 0] + defect[row, 0],
        }  # fmt: skip
        for title, picture in panels.items():
            axes = figure.add_axes((0.012 + 0.0985 * next(places), 0.03, 0.092, 0.31))
            axes.imshow(picture.numpy(), cmap="gray" if title == "truth" else "magma")
            axes.set_title(title, size=10, color=INK)
            axes.axis("off")


def main() -> None:
    """Train, then draw the boxes, the arrows and the maps."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    figure = plt.figure(figsize=(16.2, 5.4))
    axes = figure.add_axes((0, 0.3, 1, 0.7))
    for name in BOXES:
        draw_box(axes, name)
    for start, end in ARROWS:
        draw_arrow(axes, start, end)
    note = "blue: learned from\nsynthetic and real defects"
    axes.text(1.3, 4.2, note, ha="center", color=INK, size=9.5, style="italic")
    axes.set(xlim=(0, 16.2), ylim=(0.7, 4.6), aspect="equal")
    axes.axis("off")
    with tempfile.TemporaryDirectory() as folder:
        show_maps(figure, *train(Path(folder)))
    out = Path(__file__).parent / "discriminative_padim.png"
    figure.savefig(out, dpi=100)
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
