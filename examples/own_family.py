"""Add a family of defects of your own: parameters, a kernel and a caption.

python examples/own_family.py
"""

from __future__ import annotations

import torch

from anomalib_synth.functional.layers import Layer, Window
from anomalib_synth.generators import Family, Frame, RuleBasedGenerator, register_family
from anomalib_synth.generators.seeding import RandomStream


def draw_drip(rng: RandomStream, frame: Frame) -> dict[str, float]:
    """Draw the parameters: the window's size, the drop's radius and its tone."""
    length = frame.draw_size(rng)
    return {"extent_y": length, "extent_x": length / 2, "radius": length / 5, "tone": rng.uniform(0.0, 0.3)}


def render_drip(window: Window, params: dict[str, torch.Tensor]) -> Layer:
    """Paint a thread of glue that ends in a drop; x and y are pixels from the window's middle."""
    drop = (window.x**2 + (window.y - params["radius"]) ** 2).sqrt() < params["radius"]
    thread = (window.x.abs() < 0.3 * params["radius"]) & (window.y < params["radius"])
    target = params["tone"].expand_as(window.image)
    return Layer(target=target, alpha=(drop | thread).float())


DRIP = register_family(
    Family(
        name="glue_drip", source="glue that ran down", draw=draw_drip, render=render_drip, physical=True,
        caption=lambda params: "a large drip of glue" if params["radius"] > 6 else "a small drip of glue",
    )
)  # fmt: skip


def main() -> None:
    """Draw a few."""
    generator = RuleBasedGenerator(["glue_drip"], strength=(0.7, 1.0))
    sample = generator(torch.full((4, 3, 96, 96), 0.6), seeds=range(4))
    print(sample.caption, sample.accepted.tolist())


if __name__ == "__main__":
    main()
