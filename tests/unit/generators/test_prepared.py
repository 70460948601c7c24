"""Foreground, noise floor, donors and their digest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth.functional.foreground import otsu_threshold
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.prepared import ForegroundModel, PreparedNormals
from tests.contract import render_normals


def render_objects(count: int = 8, size: int = 96, *, lit: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark discs with a bright print on a light, unevenly lit background; and their masks."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    images, masks = [], []
    for _ in range(count):
        dx, dy = (torch.rand(2, generator=rng) * 0.3 - 0.15).tolist()
        radius = ((x - dx) ** 2 + (y - dy) ** 2).sqrt()
        part = radius < 0.6
        image = torch.where(part, 0.2, 0.75 + lit * x)
        image = torch.where((x - dx).abs().lt(0.3) & (y - dy).abs().lt(0.06), 0.75, image)
        images.append((image + 0.02 * torch.randn(size, size, generator=rng)).clamp(0, 1).expand(3, -1, -1))
        masks.append(part)
    return torch.stack(images), torch.stack(masks)[:, None]


@pytest.mark.parametrize("lit", [0.0, 0.15])
def test_object_is_found_with_its_print_when_light_is_even_or_not(lit) -> None:
    images, masks = render_objects(lit=lit)
    prepared = PreparedNormals.from_images(images)
    assert prepared.foreground.threshold is not None, prepared.foreground.note
    found = torch.nn.functional.interpolate(prepared.foreground.segment(images).float(), size=96) > 0
    overlap = (found & masks).sum() / (found | masks).sum()
    assert overlap > 0.93


def test_texture_is_taken_whole() -> None:
    prepared = PreparedNormals.from_images(render_normals(6, 3, 80, 80))
    assert prepared.foreground.threshold is None
    assert prepared.foreground.note.startswith("whole image")


def test_image_whose_part_is_swallowed_is_taken_whole() -> None:
    images, _ = render_objects()
    prepared = PreparedNormals.from_images(images)
    blank = torch.full((1, 3, 96, 96), 0.75)
    assert bool(prepared.foreground.segment(blank).all())


@pytest.mark.parametrize(("radius", "whole"), [(0.13, True), (0.25, False), (0.55, False), (0.7, True)])
def test_image_is_taken_whole_when_its_part_is_off_by_a_factor_of_three(radius, whole) -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    disc = (x**2 + y**2).sqrt() < radius
    usual = ForegroundModel(threshold=0.2, area=0.1, note="")
    share = float(disc.float().mean())
    assert (share < usual.area / 3 or share > 3 * usual.area) is whole
    found = usual.segment(torch.where(disc, 0.2, 0.8).expand(1, 3, -1, -1))
    assert found is not None
    assert bool(found.all()) is whole
    assert bool(found[0, 0][disc].all())


@pytest.mark.parametrize("family", ["scratch", "noise", "nsa", "stain", "memseg", "dent"])
def test_defects_land_on_the_part(family) -> None:
    images, masks = render_objects()
    sample = RuleBasedGenerator([family], size=(0.1, 0.25)).prepare(images)(images, seeds=range(8))
    assert sample.accepted.sum() >= 6
    for row in sample.accepted.nonzero().flatten():
        inside = (sample.mask[row] * masks[row]).sum() / sample.mask[row].sum()
        assert inside > 0.5


def test_part_mask_of_a_file_keeps_defects_out_of_the_rest(tmp_path) -> None:
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(tmp_path / "part.png")
    images = render_normals(12, 3, 64, 64)
    generator = RuleBasedGenerator(["noise", "cutout"], foreground=tmp_path / "part.png", size=(0.05, 0.15))
    sample = generator(images, seeds=range(12))
    assert sample.accepted.all()
    assert sample.mask[..., :32].sum() > 0.6 * sample.mask.sum()


def test_mask_of_the_call_says_where_a_defect_may_lie() -> None:
    images = render_normals(8, 3, 64, 64)
    region = torch.zeros(8, 1, 64, 64)
    region[..., 40:60, 40:60] = 1
    sample = RuleBasedGenerator(["cutout"], size=(0.05, 0.1))(images, seeds=range(8), masks=region)
    assert sample.accepted.all()
    assert (sample.mask * region).sum() > 0.6 * sample.mask.sum()


def test_digest_and_donors_do_not_depend_on_the_order_but_on_the_images() -> None:
    images = render_normals(5, 3, 40, 40)
    forward, backward = PreparedNormals.from_images(images), PreparedNormals.from_images(images.flip(0))
    assert forward.digest == backward.digest
    assert torch.equal(forward.donors, backward.donors)
    assert forward.digest != PreparedNormals.from_images(images[:4]).digest


def test_donor_memory_is_bounded() -> None:
    images = render_normals(9, 3, 40, 40)
    prepared = PreparedNormals.from_images(images, max_donor_bytes=4 * 3 * 40 * 40)
    assert prepared.donors.shape[0] == 4
    assert prepared.count == 9


def test_noise_floor_grows_with_the_noise_of_normals() -> None:
    quiet = torch.full((4, 3, 64, 64), 0.5)
    loud = (quiet + 0.2 * torch.rand(quiet.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert PreparedNormals.from_images(quiet).noise.max() == 0
    assert 0.03 < PreparedNormals.from_images(loud).noise.mean() < 0.06


def test_faint_defect_is_rejected_on_noisy_normals_and_kept_on_quiet_ones() -> None:
    quiet = torch.full((8, 3, 64, 64), 0.5)
    noise = 0.3 * torch.rand(quiet.shape, generator=torch.Generator().manual_seed(0)) - 0.15
    shares = []
    for images in (quiet, (quiet + noise).clamp(0, 1)):
        generator = RuleBasedGenerator(["stain"], strength=(0.2, 0.2), max_attempts=1).prepare(images)
        sample = generator(images, seeds=range(8))
        shares.append(float(sample.accepted.float().mean()))
        assert all("below" in reason or "nothing changed" in reason for reason in sample.reason if reason)
    assert shares[0] > shares[1]


def test_otsu_splits_two_clusters() -> None:
    values = torch.cat([torch.full((100,), 0.2), torch.full((50,), 0.8)])
    assert 0.2 <= otsu_threshold(values) < 0.8


def test_normals_are_checked() -> None:
    for bad, message in (
        ([], "at least one image"),
        ([torch.zeros(3, 8, 8, dtype=torch.uint8)], "must yield float images"),
        ([torch.full((3, 8, 8), 2.0)], r"in \[0, 1\]"),
        ([torch.full((3, 8, 8), float("nan"))], "finite"),
        ([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)], "same number of channels"),
    ):
        with pytest.raises(ValueError, match=message):
            PreparedNormals.from_images(bad)
