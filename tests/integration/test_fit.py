"""``anomalib-synth fit`` from the command line, as small as it can be."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.fitting import bundle as fitting
from anomalib_synth.models.bundle import load_bundle
from anomalib_synth.models.diffusion import DiffusionEditor
from tests.contract import render_normals

TINY = [
    *("--settings.autoencoder_steps=2", "--settings.token_steps=2", "--settings.dual_steps=2", "--settings.width=8"),
    *("--settings.dim=16", "--settings.depth=1", "--settings.codebook_size=16"),
]


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    monkeypatch.setattr(fitting, "_VOCABULARY_WINDOWS", 64)
    monkeypatch.setattr(fitting, "_CODEBOOK_WINDOWS", 64)
    monkeypatch.setattr(fitting, "_SCORED_BATCHES", 1)


@pytest.fixture
def normals(tmp_path):
    folder = tmp_path / "good"
    folder.mkdir()
    for number, image in enumerate(render_normals(4, 3, 60, 100)):
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_dry_run_says_how_long_and_writes_nothing(normals, tmp_path, capsys) -> None:
    main(["fit", f"--normals={normals}", f"--out={tmp_path / 'bundle'}", "--dry_run=true", *TINY])
    text = capsys.readouterr().out
    assert "4 images; about " in text
    assert "Left out broken.png of `normals`: not an image" in text
    assert not (tmp_path / "bundle").exists()


def test_real_defects_become_words_of_the_bundle(normals, tmp_path, capsys) -> None:
    spot = tmp_path / "defects" / "test" / "coffee_ring"
    truth = tmp_path / "defects" / "ground_truth" / "coffee_ring"
    for folder in (spot, truth):
        folder.mkdir(parents=True)
    pixels = (render_normals(1, 3, 96, 96)[0].permute(1, 2, 0) * 255).byte().numpy()
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[40:60, 30:50] = 255
    pixels[mask > 0] = 20
    Image.fromarray(pixels).save(spot / "000.png")
    Image.fromarray(mask).save(truth / "000_mask.png")
    defects = tmp_path / "defects" / "test"
    arguments = [f"--normals={normals}", f"--out={tmp_path / 'bundle'}", f"--defects={defects}", "--licence=our own"]
    main(["fit", *arguments, *TINY])
    bundle = load_bundle(tmp_path / "bundle")
    assert {"coffee", "ring", "scratch"} <= set(bundle.vocabulary.words)
    assert bundle.card["inputs"][str(normals)] == "our own"
    assert bundle.card["normals"] == 4
    assert "reconstructed from their tokens" in capsys.readouterr().out


def test_diffusion_trains_a_pipeline_in_place_of_the_bundle(normals, tmp_path, capsys) -> None:
    sizes = {"pairs": 64, "autoencoder_steps": 1, "diffusion_steps": 1, "autoencoder_width": 8, "width": 8}
    tiny = [f"--diffusion_settings.{name}={value}" for name, value in (sizes | {"text_width": 8}).items()]
    main(["fit", f"--normals={normals}", f"--out={tmp_path / 'pipeline'}", "--diffusion=true", *tiny])
    assert not (tmp_path / "pipeline" / "bundle.json").exists()
    assert DiffusionEditor(tmp_path / "pipeline").resolution == 64
    assert "reconstructed from their latents" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diffusion=true", "--settings.window=64"], "`settings` has no effect with `diffusion` true"),
        (["--diffusion_settings.width=8"], "`diffusion_settings` has no effect with `diffusion` false"),
        (["--max_normals=1"], "`max_normals` must be >= 2"),
        (["--image_size=32"], "sides >= 64 and <= 10000, got 32"),
        (["--settings.window=65"], "`window` must be a multiple of 64"),
        (["--settings.tokens=65"], "tokens"),
    ],
)
def test_bad_arguments_are_refused(normals, tmp_path, arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as error:
        main(["fit", f"--normals={normals}", f"--out={tmp_path / 'bundle'}", *arguments])
    assert message in f"{error.value}{capsys.readouterr().err}"


def test_folder_without_two_images_is_refused(tmp_path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.png").write_bytes(b"")
    with pytest.raises(SystemExit, match="at least two readable images"):
        main(["fit", f"--normals={tmp_path / 'good'}", f"--out={tmp_path / 'bundle'}"])
