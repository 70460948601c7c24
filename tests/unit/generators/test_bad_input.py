"""Bad input gets an error that names the argument, the rule, the value and the remedy."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator, SampleChecks, build_generator
from tests.contract import render_normals

IMAGES = render_normals(2, 3, 32, 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RuleBasedGenerator(["scratsch"]), r"`families`.*scratsch.*Known: noise, cutpaste"),
        (lambda: RuleBasedGenerator([]), "`families` must name"),
        (lambda: RuleBasedGenerator({"scratch": -1.0}), "`families` weights must be finite and >= 0"),
        (lambda: RuleBasedGenerator({"scratch": float("nan")}), "`families` weights must be finite"),
        (lambda: RuleBasedGenerator({"scratch": 0.0}), "`families` must have a positive weight"),
        (lambda: RuleBasedGenerator(strength=(0.0, 1.0)), r"`strength` must satisfy 0 < min <= max <= 1, got \(0.0, 1"),
        (lambda: RuleBasedGenerator(strength=(0.9, 0.2)), "`strength` must satisfy"),
        (lambda: RuleBasedGenerator(size=(0.1, 1.2)), "`size` must satisfy"),
        (lambda: RuleBasedGenerator(strength=0.5), "`strength` must satisfy"),
        (lambda: RuleBasedGenerator(max_attempts=0), "`max_attempts` must be >= 1, got 0"),
        (lambda: SampleChecks(min_visibility=-1), "`min_visibility` must be >= 0"),
        (lambda: SampleChecks(min_agreement=2), r"`min_agreement` must be in \[0, 1\], got 2"),
        (lambda: SampleChecks(min_foreground=float("nan")), "`min_foreground` must be in"),
        (lambda: SampleChecks(area=(0.5, 0.1)), "`area` must satisfy"),
        (lambda: MixtureGenerator([]), "`generators` must hold at least one"),
        (lambda: MixtureGenerator([RuleBasedGenerator()], weights=[1, 2]), "`weights` must be 1 finite numbers"),
        (lambda: MixtureGenerator([RuleBasedGenerator()], weights=[0]), "positive sum"),
        (
            lambda: build_generator({"class_path": "pathlib.Path", "init_args": {}}),
            "`class_path` must name a generator",
        ),
    ],
)
def test_constructor(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), r"must be float \(B, C, H, W\), got torch.float32 \(3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "divide 8-bit images by 255"),
        (torch.zeros(2, 4, 32, 32), "1 or 3 channels"),
        (torch.zeros(2, 3, 0, 32), "at least one pixel"),
        (torch.full((2, 3, 32, 32), float("nan")), r"finite and in \[0, 1\], got values from nan"),
        (torch.full((2, 3, 32, 32), 1.5), r"in \[0, 1\], got values from 1.5"),
        (torch.full((2, 3, 32, 32), -0.5), "before normalisation"),
        ([1, 2], "must be float"),
    ],
)
def test_images(images, message) -> None:
    with pytest.raises(ValueError, match=message):
        RuleBasedGenerator()(images)


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], [1, -2], 5, [1.9, 2.0]])
def test_seeds(seeds) -> None:
    with pytest.raises(ValueError, match="`seeds` must be 2 integers >= 0"):
        RuleBasedGenerator()(IMAGES, seeds=seeds)


def test_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"`masks` must have shape \(2, 1, 32, 32\).*got \(2, 1, 16, 16\)"):
        RuleBasedGenerator()(IMAGES, masks=torch.ones(2, 1, 16, 16))


def test_texture_folder(tmp_path) -> None:
    def draw(folder) -> None:
        RuleBasedGenerator(["perlin_texture"], texture_dir=folder)(IMAGES, seeds=[1, 2])

    with pytest.raises(ValueError, match="`texture_dir` must be a folder"):
        draw(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"`texture_dir` must be a folder with images .* holds none"):
        draw(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"unreadable image, .*broken.png"):
        draw(tmp_path)
    (tmp_path / "broken.png").unlink()
    (tmp_path / "gone.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"draws by the file '.*gone\.png', which cannot be read .* Put it back"):
        draw(tmp_path)


def test_texture_folder_is_used(tmp_path) -> None:
    from PIL import Image

    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "red.png")
    images = torch.full((4, 3, 64, 64), 0.5)
    images[:, 0] = 0.4
    options = {"strength": (1.0, 1.0), "texture_dir": tmp_path}
    sample = RuleBasedGenerator(["perlin_texture"], **options)(images, seeds=range(4))
    assert sample.accepted.any()
    inside = sample.mask.expand_as(images) > 0
    changed = sample.image[inside] - images[inside]
    assert changed.abs().max() > 0.1


def test_part_mask_file(tmp_path) -> None:
    from PIL import Image

    with pytest.raises(ValueError, match=r"`foreground` needs a usable mask, .*missing.png' is none: cannot be read"):
        RuleBasedGenerator(foreground=tmp_path / "missing.png")(IMAGES, seeds=[1, 2])
    Image.new("L", (8, 8)).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match="zero everywhere"):
        RuleBasedGenerator(foreground=tmp_path / "empty.png")(IMAGES, seeds=[1, 2])


def test_images_with_other_channels_than_the_prepared_ones() -> None:
    generator = RuleBasedGenerator(["nsa"]).prepare(render_normals(2, 1, 32, 32))
    with pytest.raises(ValueError, match="3 channels, but the generator was prepared with 1"):
        generator(IMAGES, seeds=[1, 2])
