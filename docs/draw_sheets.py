"""Draw sheets for the eye: each family and twelve prompts on each product, four draws a row, as they come.

python docs/draw_sheets.py                              # docs/sheets/*.jpg, on the package's own demo parts
python docs/draw_sheets.py --data DATA --out FOLDER     # on a folder of products, each with train/good
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.report.preview_tiles import draw_tiles

PROMPTS = [
    "a long thin dark scratch, high contrast", "a short wide bright scratch", "a branching dark crack",
    "a thick curled black fibre", "a small round dent", "a large irregular dark stain",
    "a brown patch of pitting corrosion", "a dark burn with a brown halo", "a small clean dark hole",
    "a jagged edge chip with a bright fracture", "a ghosted misprint", "a bright pulled thread",
]  # fmt: skip
SIZE, NORMALS, DRAWS, TILE, GAP, TEXT = 256, 64, 4, 112, 6, 18


def draw_sheet(rows: list[tuple[str, AnomalyGenerator, list[str] | None]], normals: list[torch.Tensor]) -> Image.Image:
    """Return a sheet with a row for each (title, generator, prompts or None); a draw that failed is left white."""
    pair = 2 * TILE + GAP
    sheet = Image.new("RGB", (DRAWS * (pair + GAP) - GAP, len(rows) * (TILE + TEXT)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for line, (title, generator, prompts) in enumerate(rows):
        top = line * (TILE + TEXT)
        pen.text((0, top + TILE + 1), title, fill="#1b1f27", font=font)
        for column in range(DRAWS):
            image = normals[(7 * line + column) % len(normals)][None]
            asked = {} if prompts is None else {"prompts": prompts}
            sample = generator(image, seeds=[1000 * line + column], **asked)
            tiles, left = draw_tiles(sample, 0, TILE), column * (pair + GAP)
            for offset, name in enumerate(("before", "after")):
                if name in tiles:
                    sheet.paste(tiles[name], (left + offset * TILE, top))
    return sheet


def draw_product(root: Path, name: str, out: Path) -> None:
    """Draw the two sheets of a product whose good images are in a folder."""
    normals = list(read_folder(root, image_size=SIZE, limit=NORMALS))
    rules = RuleBasedGenerator().prepare(normals)
    words = AutoregressiveGenerator().prepare(normals)
    families = [(family, rules.only(family), None) for family in rules.available_families()]
    prompts = [(prompt, words, [prompt]) for prompt in PROMPTS]
    for kind, rows in (("families", families), ("words", prompts)):
        draw_sheet(rows, normals).save(out / f"{name}_{kind}.jpg", quality=80, optimize=True)


def main() -> None:
    """Draw the sheets of the demo parts, or of a folder of products."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per product")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sheets")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        if args.data is None:
            DemoParts(root=root, category="all", num_train=NORMALS, num_test_good=1, num_test_defect=1).prepare_data()
        products = sorted(path.parent for path in (args.data or Path(root)).glob("*/train"))
        for product in track(products, "Products"):
            draw_product(product / "train" / "good", product.name, args.out)
    print(f"{len(products)} products; wrote two sheets for each in {args.out}")


if __name__ == "__main__":
    main()
