"""Train the bundle that comes with the package, on what this repository can render and on public-domain photographs.

    OMP_NUM_THREADS=1 python scripts/fit_default_bundle.py --work /tmp/default_bundle

About 70 minutes on one core; goes on where it was stopped. ``--start BUNDLE`` keeps the tokenizer of a bundle and goes
on from its weights, with fewer steps: so the present one was made, from the one before. Copies the result into the
package. The photographs come with scikit-image (NASA's, Brooklyn Museum's and others', public domain or CC0; its
data/README.txt says which is whose).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from rich.progress import Progress

from anomalib_synth.data import DemoParts
from anomalib_synth.fitting.bundle import fit_bundle
from anomalib_synth.fitting.settings import FitSettings
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.generators.seeding import RandomStream
from anomalib_synth.generators.textures import ProceduralTextures
from anomalib_synth.models.bundle import DEFAULT, Bundle

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "moon.png", "rocket.jpg",
)  # fmt: skip
INPUTS = {
    "DemoParts, rendered by this repository": "Apache-2.0",
    "procedural textures, rendered by this repository": "Apache-2.0",
    "photographs of scikit-image": "public domain or CC0",
    "defects: the physical families, drawn by this repository": "Apache-2.0",
}


def render_parts(folder: Path, count: int) -> list[torch.Tensor]:
    """Return demo parts of all kinds, of another seed than any config uses."""
    DemoParts(
        root=folder, category="all", num_train=count, num_test_good=1, num_test_defect=1, seed=20260
    ).prepare_data()
    return [read(path) for path in sorted(folder.glob("*/train/good/*.png"))]


def render_textures(count: int) -> list[torch.Tensor]:
    """Return procedural textures, half of them grey."""
    textures = ProceduralTextures()
    cut = [textures.cut(RandomStream(seed), (192, 192), 3) for seed in range(count)]
    cut = [image.mean(0, keepdim=True).expand(3, -1, -1) if n % 2 else image for n, image in enumerate(cut)]
    return [(image.clamp(0, 1) * 255).round().to(torch.uint8).contiguous() for image in cut]


def read(path: Path, scale: float = 1.0) -> torch.Tensor:
    """Return an image as (3, H, W) uint8."""
    image = Image.open(path).convert("RGB")
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def main() -> None:
    """Collect, train, copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, default=None, help="bundle to begin with; its tokenizer stays")
    parser.add_argument("--token_steps", type=int, default=3000)
    parser.add_argument("--dual_steps", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(skimage.__file__).parent / "data"
    photographs = [read(folder / name, scale) for name in PHOTOGRAPHS for scale in (0.5, 1.0)]
    with tempfile.TemporaryDirectory() as name:
        normals = [*render_parts(Path(name), 24), *render_textures(48), *photographs, *photographs]
    generator = RuleBasedGenerator(PHYSICAL, size=(0.03, 0.3), strength=(0.4, 1.0), foreground=None)
    settings = FitSettings(
        autoencoder_steps=3000, token_steps=options.token_steps, dual_steps=options.dual_steps, held_out=0.05
    )
    start = None if options.start is None else Bundle(options.start)
    with Progress() as progress:
        tasks: dict[str, int] = {}

        def advance(stage: str, step: int, steps: int, text: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=steps)
            progress.update(tasks[stage], completed=step, description=f"{stage}: {text}")
            if step % 200 == 0:
                progress.console.print(f"{stage} {step} of {steps}: {text}")

        bundle = fit_bundle(
            normals, generator, options.work, settings=settings, inputs=INPUTS, start=start, advance=advance
        )
    print({name: bundle.card[name] for name in ("minutes_of_last_start", "reconstruction_psnr_db", "dual_encoder")})
    for file in [options.work / "bundle.json", *options.work.glob("*.safetensors")]:
        DEFAULT.mkdir(exist_ok=True)
        shutil.copy(file, DEFAULT)
    print(f"{sum(file.stat().st_size for file in DEFAULT.iterdir()) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
