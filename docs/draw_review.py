"""Draw docs/review.png and docs/review_narrow.png: the review page, on the package's own demo parts.

    python docs/draw_review.py

Needs the extras ``demo`` and ``test``, and Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from anomalib_synth.commands.generate import generate  # noqa: E402
from anomalib_synth.generators import RuleBasedGenerator  # noqa: E402
from anomalib_synth.store import SampleStore  # noqa: E402
from tests.integration.review_site import Visit, open_browser, serve_store  # noqa: E402


def make_store(folder: Path) -> SampleStore:
    """Generate 400 samples on printed caps, with a floor that refuses the faintest."""
    parts = {
        "class_path": "anomalib_synth.data.DemoParts",
        "init_args": {"root": str(folder / "parts"), "category": "printed_cap", "seed": 0},
    }
    (folder / "parts.yaml").write_text(yaml.safe_dump(parts))
    out = folder / "printed_cap"
    generator = RuleBasedGenerator(strength=(0.1, 1.0), max_attempts=1)
    generate(datamodule=folder / "parts.yaml", generator=generator, out=out, num_samples=400)
    return SampleStore.open(out)


def main() -> None:
    """Generate, judge a few, and photograph the page at two widths."""
    with tempfile.TemporaryDirectory() as name:
        store = make_store(Path(name))
        drawn = [record.id for record in store.records if record.image_file]
        store.decide([drawn[1], drawn[7]], accepted=False)
        store.decide([drawn[0], drawn[4], drawn[8]], accepted=True)
        with serve_store(store.path) as address, open_browser() as browser:
            for width, height, file in ((1280, 860, "review.png"), (400, 860, "review_narrow.png")):
                page = Visit(browser, width=width, height=height).open(address)
                page.wait_for_load_state("networkidle")
                picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
                picture.quantize(256).save(ROOT / "docs" / file, optimize=True)


if __name__ == "__main__":
    main()
