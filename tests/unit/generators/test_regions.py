"""Regions that are given: the gate of an edit, whatever their shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth.functional.masks import soften_inside
from anomalib_synth.generators import AutoregressiveGenerator, SampleChecks, local_edits
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.generators.regions import read_region
from anomalib_synth.models.captions import split_words
from anomalib_synth.models.editing import Edit
from tests import contract
from tests.unit.models.small_bundle import make_bundle

LOOSE = SampleChecks(min_visibility=0.05, min_agreement=0.01, area=(1e-5, 0.6))
SIDE = 96


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(make_bundle(tmp_path_factory.mktemp("bundle")).path)


@pytest.fixture
def make(bundle):
    return lambda **options: AutoregressiveGenerator(bundle=bundle, **{"checks": LOOSE, **options})


@pytest.fixture
def edits(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor, Edit]]:
    """The window, the mask and the outcome of every edit that is made."""
    made = []
    edit_window = local_edits.edit_window

    def record(backend, image, mask, *arguments, **options):
        made.append((image.clone(), mask, edit_window(backend, image, mask, *arguments, **options)))
        return made[-1][-1]

    monkeypatch.setattr(local_edits, "edit_window", record)
    return made


def draw_regions() -> dict[str, torch.Tensor]:
    """Regions (1, 1, 96, 96) of many kinds."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    rng = np.random.default_rng(0)
    several, blobs = torch.zeros(SIDE, SIDE, dtype=torch.bool), torch.zeros(SIDE, SIDE)
    several[10:18, 60:80] = several[50:70, 12:20] = several[88, 90] = True
    for angle in rng.uniform(0, 6.3, 9):
        blobs += torch.exp(-((y - 48 - 14 * math.cos(angle)) ** 2 + (x - 48 - 20 * math.sin(angle)) ** 2) / 60)
    regions = {
        "blob": blobs > 0.5,
        "disc": (y - 40) ** 2 + (x - 50) ** 2 <= 13**2,
        "line": (y == x) & (y > 20) & (y < 70),
        "row": (y == 33) & (x > 5) & (x < 90),
        "ring": ((y - 48) ** 2 + (x - 48) ** 2 <= 30**2) & ((y - 48) ** 2 + (x - 48) ** 2 > 27**2),
        "several": several,
        "corner": (y < 12) & (x < 9),
        "border": (y > 84) & (x > 30),
        "frame": (y < 3) | (x < 3) | (y > SIDE - 4) | (x > SIDE - 4),
        "random": torch.from_numpy(rng.uniform(size=(SIDE, SIDE)) < 0.1),
        "whole": torch.ones(SIDE, SIDE, dtype=torch.bool),
    }
    return {name: region[None, None] for name, region in regions.items()}


REGIONS = draw_regions()


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("shape", ["region", "family"])
def test_nothing_outside_changes_when_a_region_is_given(make, edits, name, shape) -> None:
    images = contract.render_normals(2, 3, SIDE, SIDE)
    region = REGIONS[name].expand(2, -1, -1, -1)
    generator = make(shape=shape, strength=(1.0, 1.0))
    sample = generator(images, seeds=[1, 2], masks=region.float(), prompts=["a dark stain"] * 2)
    outside = ~region.expand_as(images)
    assert torch.equal(sample.image[outside], images[outside])
    assert not sample.mask[~region].any()
    assert shape == "family" or sample.accepted.any()
    backend = generator.backend
    for window, mask, edit in edits:
        _, source = backend.encode(window)
        for scale, (drawn, kept) in enumerate(zip(edit.tokens, source, strict=True)):
            gate = backend.gate(mask, scale) & (scale >= backend.frozen_scales)
            assert torch.equal(drawn[~gate], kept[~gate])
    contract.check_locality(sample)
    contract.check_honest_mask(sample)


@pytest.mark.parametrize("name", ["line", "row", "random", "several"])
def test_every_pixel_of_a_region_is_drawn_when_it_is_thin(make, edits, name) -> None:
    images = contract.render_normals(1, 3, SIDE, SIDE)
    make()(images, seeds=[1], masks=REGIONS[name], prompts=["a dark scratch"])
    assert edits[0][1].sum() == REGIONS[name].sum()
    for _, mask, edit in edits:
        for scale in range(2, 7):
            tokens = make().backend.gate(mask, scale)[:, None].float()
            covered = torch.nn.functional.interpolate(tokens, mask.shape[-2:]) > 0
            assert bool(covered[mask > 0].all())
        assert any((a != b).any() for a, b in zip(edit.tokens, edit.source, strict=True))


def test_the_shape_is_the_regions_and_not_the_familys_when_none_is_asked_for(make) -> None:
    images = contract.render_normals(3, 3, SIDE, SIDE)
    region = REGIONS["disc"].expand(3, -1, -1, -1)
    prompts = ["a long dark scratch"] * 3
    whole = make(checks=SampleChecks(min_visibility=0, min_agreement=0, area=(0, 0.6)), strength=(1.0, 1.0))
    sample = whole(images, seeds=[1, 2, 3], masks=region, prompts=prompts)
    share = sample.mask.sum() / region.sum()
    thin = make(shape="family", strength=(1.0, 1.0))(images, seeds=[1, 2, 3], masks=region, prompts=prompts)
    assert share > 0.6
    assert 0 < thin.mask.sum() < 0.5 * sample.mask.sum()


def test_the_whole_image_is_drawn_in_pieces_when_it_is_the_region(make, edits) -> None:
    images = contract.render_normals(1, 3, 200, 180)
    sample = make(strength=(1.0, 1.0))(images, seeds=[1], masks=torch.ones(1, 1, 200, 180))
    assert len(edits) == 4
    assert max(window.shape[-1] for window, *_ in edits) <= 128
    assert bool(sample.accepted[0])
    assert sample.provenance[0].measured["area"] > 0.6


def test_a_far_larger_image_is_left_alone_between_parts_of_a_region(make, edits) -> None:
    images = contract.render_normals(1, 3, 700, 900)
    region = torch.zeros(1, 1, 700, 900)
    region[..., 5:25, 5:30] = region[..., 660:699, 850:900] = 1
    sample = make()(images, seeds=[1], masks=region)
    assert len(edits) == 2
    assert max(window.shape[-1] for window, *_ in edits) <= 256
    outside = (region == 0).expand_as(images)
    assert torch.equal(sample.image[outside], images[outside])


def test_other_rows_are_drawn_when_the_region_of_one_is_empty(make) -> None:
    images = contract.render_normals(2, 3, SIDE, SIDE)
    masks = torch.cat([torch.zeros(1, 1, SIDE, SIDE), REGIONS["disc"].float()])
    sample = make()(images, seeds=[1, 2], masks=masks)
    assert sample.accepted.tolist() == [False, True]
    assert sample.reason[0] == "the region is empty"
    assert torch.equal(sample.image[0], images[0])


def test_the_reason_names_the_area_when_a_region_is_too_small(make) -> None:
    images = contract.render_normals(1, 3, SIDE, SIDE)
    masks = torch.zeros(1, 1, SIDE, SIDE)
    masks[..., 40, 40] = 1
    strict = SampleChecks(min_visibility=0, min_agreement=0, area=(1e-3, 0.6))
    sample = make(checks=strict)(images, seeds=[1], masks=masks, prompts=["a dark stain"])
    assert "mask area 0.00011 outside [0.001, 1]" in sample.reason[0]
    assert torch.equal(sample.image, images)


def test_a_sample_replays_when_a_region_is_given(make) -> None:
    images = contract.render_normals(3, 3, SIDE, SIDE)
    region = torch.cat([REGIONS[name] for name in ("disc", "line", "several")]).float()
    whole = make()(images, seeds=[1, 2, 3], masks=region)
    for row in range(3):
        single = make()(images[row : row + 1], seeds=[row + 1], masks=region[row : row + 1])
        contract.assert_row_equal(contract.pick(whole, row), contract.pick(single, 0))


def test_a_caption_speaks_of_the_regions_size_when_no_prompt_is_given(make) -> None:
    images = contract.render_normals(6, 3, 200, 200)
    masks = torch.zeros(6, 1, 200, 200)
    masks[..., 90:102, 90:102] = 1
    sample = make(size=(0.04, 0.5))(images, seeds=list(range(6)), masks=masks)
    assert sample.accepted.any()
    assert not any({"large", "long"} & set(split_words(caption)) for caption in sample.caption)
    assert len({record.family for record in sample.provenance}) > 2


def save(path, region: torch.Tensor, side: tuple[int, int] | None = None) -> str:
    mask = Image.fromarray(region[0, 0].to(torch.uint8).numpy() * 255)
    (mask if side is None else mask.resize(side, Image.Resampling.NEAREST)).save(path)
    return str(path)


def test_a_file_is_the_region_of_every_image_and_rebuilt_when_it_is_named(make, tmp_path) -> None:
    images = contract.render_normals(2, 3, SIDE, SIDE)
    generator = make(region=save(tmp_path / "region.png", REGIONS["disc"]))
    sample = generator(images, seeds=[1, 2])
    expected = make()(images, seeds=[1, 2], masks=REGIONS["disc"].expand(2, -1, -1, -1))
    assert torch.equal(sample.image, expected.image)
    assert sample.accepted.any()
    assert generator.files_digest
    assert torch.equal(build_generator(generator.config)(images, seeds=[1, 2]).image, sample.image)
    other = generator(images, seeds=[1, 2], masks=REGIONS["corner"].expand(2, -1, -1, -1))
    assert not other.mask[~REGIONS["corner"].expand(2, -1, -1, -1)].any()


def test_a_thin_line_stays_when_a_file_is_larger_than_the_image(tmp_path) -> None:
    line = torch.zeros(1, 1, 400, 300, dtype=torch.bool)
    line[..., 201, :] = True
    assert read_region(save(tmp_path / "line.png", line), (40, 30))[..., 20, :].all()
    grown = read_region(save(tmp_path / "line.png", line), (800, 600))
    assert int(grown.sum()) == 2 * 600


@pytest.mark.parametrize(
    ("region", "message"),
    [(REGIONS["disc"] & False, "zero everywhere"), (torch.ones(1, 1, 60, 30), "must have the shape of its image")],
)
def test_a_file_is_refused_when_it_marks_nothing_or_has_another_shape(make, tmp_path, region, message) -> None:
    generator = make(region=save(tmp_path / "region.png", region))
    with pytest.raises(ValueError, match=message):
        generator(contract.render_normals(1, 3, 64, 96), seeds=[1])


def test_a_missing_file_or_an_unknown_shape_is_named_when_it_is_used(make) -> None:
    with pytest.raises(ValueError, match="region"):
        make(region="no/such/file.png")(contract.render_normals(1, 3, 64, 64), seeds=[1])
    with pytest.raises(ValueError, match="`shape` must be one of 'region', 'family'"):
        make(shape="round")


def test_thin_parts_stay_whole_when_a_mask_is_softened() -> None:
    line = REGIONS["row"].float()
    assert torch.equal(soften_inside(line)[..., 7:88], line[..., 7:88])
    disc = soften_inside(REGIONS["disc"].float())
    assert disc[..., 40, 50] == 1
    assert 0 < float(disc[REGIONS["disc"]].min()) < 0.8
    assert not disc[~REGIONS["disc"]].any()
