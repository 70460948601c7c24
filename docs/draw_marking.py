"""Draw docs/marking.png and docs/marking_narrow.png: a defect being marked, on the package's own demo parts.

    python docs/draw_marking.py

Needs the extras ``demo`` and ``test``, and Chromium.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from anomalib_synth.data import DemoParts  # noqa: E402
from anomalib_synth.images import decode_mask  # noqa: E402
from tests.integration.review_site import Visit, open_browser, serve_marking  # noqa: E402


def find_box(mask: Path) -> list[tuple[float, float]]:
    """Return corners, as shares of the sides, of a box around the largest region of a mask."""
    labels, _ = ndimage.label(decode_mask(mask, "mask"))
    inside = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    sides = []
    for axis in (0, 1):
        places = inside.any(axis).nonzero()[0]
        margin = 0.25 * (places[-1] - places[0]) + 3
        length = inside.shape[1 - axis]
        sides.append((max(places[0] - margin, 0) / length, min(places[-1] + margin, length - 1) / length))
    return [(sides[0][0], sides[1][0]), (sides[0][1], sides[1][1])]


def main() -> None:
    """Render parts, draw a box around a defect, and photograph the page at two widths."""
    with tempfile.TemporaryDirectory() as name:
        parts = DemoParts(root=name, category="printed_cap", seed=0)
        parts.prepare_data()
        test = Path(name) / "printed_cap" / "test"
        os.chdir(name)  # the page shows where marks go
        images = Path("printed_cap_defects")
        shutil.copytree(test, images, ignore=shutil.ignore_patterns("good"))
        image = sorted((images / "ink_splash").glob("*.png"))[0]
        box = find_box(test.parent / "ground_truth" / image.parent.name / f"{image.stem}_mask.png")
        with serve_marking(images) as address, open_browser() as browser:
            for width, height, file in ((1280, 860, "marking.png"), (400, 860, "marking_narrow.png")):
                page = Visit(browser, width=width, height=height).open(address)
                page.locator(f".card .picture[aria-label^='ink_splash/{image.name}']").click()
                page.wait_for_selector(".canvas img")
                canvas = page.locator(".canvas").bounding_box()
                for place, (x, y) in enumerate(box):
                    page.mouse.move(canvas["x"] + x * canvas["width"], canvas["y"] + y * canvas["height"])
                    if place == 0:
                        page.mouse.down()
                page.mouse.up()
                page.wait_for_selector("#offer:not([hidden])")
                picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
                picture.quantize(256).save(ROOT / "docs" / file, optimize=True)
                page.locator("#refuse").click()
                page.locator("#undo").click()
                page.close()


if __name__ == "__main__":
    main()
