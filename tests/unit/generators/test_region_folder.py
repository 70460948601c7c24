"""A folder of regions: which file is whose, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth.generators import AutoregressiveGenerator, MixtureGenerator, RuleBasedGenerator, ScoredGenerator
from anomalib_synth.generators.region_folder import RegionFolder


def save(path, columns: slice) -> None:
    """Save a mask of 24 x 24 whose columns are white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((24, 24), np.uint8)
    mask[:, columns] = 255
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize(
    ("file", "image", "fits"),
    [
        ("000.png", "parts/train/good/000.png", True),
        ("000_mask.png", "000.bmp", True),
        ("000.bmp", "good/000.tif", True),
        ("good/000_mask.png", "parts/train/good/000.png", True),
        ("good/000_mask.png", "parts/train/worn/000.png", False),
        ("001.png", "000.png", False),
        ("000.png", "1000.png", False),
    ],
)
def test_a_region_is_found_by_the_name_of_its_image(tmp_path, file, image, fits) -> None:
    save(tmp_path / file, slice(0, 4))
    assert RegionFolder(tmp_path).find(image) == (tmp_path / file if fits else None)


def test_the_folder_that_fits_best_wins_when_several_have_the_name(tmp_path) -> None:
    for name in ("000.png", "a/000.png", "b/a/000.png"):
        save(tmp_path / name, slice(0, 4))
    folder = RegionFolder(tmp_path)
    assert folder.find("x/b/a/000.png") == tmp_path / "b" / "a" / "000.png"
    assert folder.find("x/a/000.png") == tmp_path / "a" / "000.png"
    assert folder.find("x/c/000.png") == tmp_path / "000.png"


def test_images_beside_their_masks_are_no_regions(tmp_path) -> None:
    for name in ("a/000.png", "a/000_mask.png", "a/001.png", "b/001.png"):
        save(tmp_path / name, slice(0, 4))
    folder = RegionFolder(tmp_path)
    assert folder.find("a/000.png") == tmp_path / "a" / "000_mask.png"
    assert folder.find("a/001.png") is None
    assert folder.find("b/001.png") is None, "a photograph of a folder in which nothing is painted yet"


def test_two_files_for_one_image_are_refused(tmp_path) -> None:
    save(tmp_path / "000.png", slice(0, 4))
    save(tmp_path / "000.bmp", slice(0, 4))
    with pytest.raises(ValueError, match=r"`region` must be a folder with one mask for each image, got .*000.*000"):
        RegionFolder(tmp_path)


def test_regions_are_read_a_row_each_and_empty_without_a_file(tmp_path) -> None:
    save(tmp_path / "000.png", slice(0, 4))
    save(tmp_path / "002.png", slice(20, 24))
    regions = RegionFolder(tmp_path).read(["000.png", "001.png", "002.png"], (24, 24))
    assert regions.flatten(1).sum(1).tolist() == [96, 0, 96]
    assert regions[0, 0, :, :4].all()
    assert regions[2, 0, :, 20:].all()
    with pytest.raises(ValueError, match="`region`"):
        RegionFolder(tmp_path).read(["000.png"], (24, 48))


def test_names_are_asked_for_when_the_regions_are_a_folder(tmp_path) -> None:
    save(tmp_path / "000.png", slice(0, 4))
    generator = AutoregressiveGenerator(region=tmp_path)
    with pytest.raises(ValueError, match=r"`names` must be given where `region` is a folder"):
        generator(torch.rand(1, 3, 24, 24), seeds=[1])
    with pytest.raises(ValueError, match="`names` must be 1 texts"):
        generator(torch.rand(1, 3, 24, 24), seeds=[1], names=["a", "b"])
    assert generator.files == [tmp_path / "000.png"]


def test_an_image_without_a_region_comes_back_unchanged(tmp_path) -> None:
    save(tmp_path / "000.png", slice(0, 4))
    images = torch.rand(2, 3, 24, 24)
    for generator in (
        AutoregressiveGenerator(region=tmp_path),
        MixtureGenerator([AutoregressiveGenerator(region=tmp_path)]),
    ):
        sample = generator(images, seeds=[1, 2], names=["x/007.png", "y/008.png"])
        assert not sample.accepted.any()
        assert torch.equal(sample.image, images)
        assert sample.reason == ["there is no region for '007.png'", "there is no region for '008.png'"]


def test_images_are_named_only_when_a_generator_asks(tmp_path) -> None:
    save(tmp_path / "000.png", slice(0, 4))
    asks = AutoregressiveGenerator(region=tmp_path)
    around = MixtureGenerator([RuleBasedGenerator(), ScoredGenerator(asks)])
    assert asks.name_images(["/data/parts/train/good/000.png"]) == {"names": ["train/good/000.png"]}
    assert around.needs_names
    for generator in (RuleBasedGenerator(), AutoregressiveGenerator(region=tmp_path / "000.png")):
        assert generator.name_images(["000.png"]) == {}
