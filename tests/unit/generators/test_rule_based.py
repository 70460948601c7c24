"""Rule-based families on a product: kept on the part, in its colours, of any size."""

from __future__ import annotations

import math

import pytest
import torch

from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.families import REGISTRY, Frame
from anomalib_synth.generators.families.family import drop_colours
from anomalib_synth.generators.seeding import RandomStream
from tests.contract import render_normals
from tests.round_parts import BESIDE, SIDE, disc, parts

PHYSICAL = [family.name for family in REGISTRY.values() if family.physical]


INSIDE = [family.name for family in REGISTRY.values() if family.place == "inside"]


def chroma(images: torch.Tensor) -> torch.Tensor:
    """Largest difference of two channels, (B, H, W)."""
    return images.amax(1) - images.amin(1)


@pytest.mark.parametrize("family", INSIDE)
def test_nothing_beside_the_part_changes_when_a_family_breaks_no_edge(family: str) -> None:
    images = parts(12)
    generator = RuleBasedGenerator([family], size=(0.1, 0.5), strength=(0.8, 1.0)).prepare(parts(8, seed=1))
    assert generator.prepared.foreground.threshold is not None
    sample = generator(images, seeds=range(12))
    assert sample.accepted.sum() >= 4, sample.reason
    changed = (sample.image != sample.source).any(1, keepdim=True)
    assert not (changed & BESIDE).any()
    assert not ((sample.mask > 0) & BESIDE).any()


def test_a_chip_shows_the_background_as_it_is_lit_in_its_image() -> None:
    generator = RuleBasedGenerator(["chip"], size=(0.3, 0.4), strength=(1.0, 1.0)).prepare(parts(8, seed=1))
    normal, darker = parts(12), torch.where(disc(), parts(12), parts(12) * 0.9)
    for images, level in ((normal, 0.94), (darker, 0.85)):
        sample = generator(images, seeds=range(12))
        assert sample.accepted.sum() >= 6
        shown = torch.stack([(sample.image[row].mean(0) - level).abs() < 0.012 for row in range(12)])
        inside = (sample.mask[:, 0] > 0) & disc(41.0)[:, 0]
        assert (shown & inside).flatten(1).sum(1)[sample.accepted].float().median() > 50


def test_a_hole_in_a_region_shows_what_is_behind_the_part_and_not_the_part_around_the_region() -> None:
    generator = RuleBasedGenerator(["hole"], size=(0.2, 0.25), strength=(1.0, 1.0)).prepare(parts(8, seed=1))
    region = torch.zeros(12, 1, SIDE, SIDE)
    region[..., 45:85, 42:82] = 1
    sample = generator(parts(12), seeds=range(12), masks=region)
    through = [row for row in range(12) if sample.provenance[row].params.get("through") and sample.accepted[row]]
    assert through
    for row in through:
        assert float(sample.image[row].mean(0)[sample.mask[row, 0] > 0].max()) > 0.85


def test_a_chip_breaks_the_edge_of_the_part() -> None:
    sample = RuleBasedGenerator(["chip"], strength=(1.0, 1.0)).prepare(parts(8, seed=1))(parts(8), seeds=range(8))
    rim = disc() & ~disc(41.0)
    assert sample.accepted.any()
    assert ((sample.mask > 0) & rim).flatten(1).any(1)[sample.accepted].all()


def test_defects_go_everywhere_when_an_image_is_unlike_the_normals() -> None:
    generator = RuleBasedGenerator(["cutout"], size=(0.2, 0.3)).prepare(parts(8, seed=1))
    odd = render_normals(1, 3, SIDE, SIDE).expand(24, -1, -1, -1).contiguous()
    assert generator.prepared.foreground.segment(odd[:1]).all()
    sample = generator(odd, seeds=range(24))
    assert ((sample.mask > 0) & ~disc(45.5)).any()


def test_the_whole_image_is_the_part_when_pieces_lie_on_it() -> None:
    board = torch.full((4, 3, SIDE, SIDE), 0.3)
    for row, column in ((20, 20), (20, 80), (80, 20), (80, 80)):
        board[..., row : row + 24, column : column + 24] = 0.9
    foreground = RuleBasedGenerator().prepare(board).prepared.foreground
    assert foreground.threshold is None
    assert "lies in pieces" in foreground.note


def test_a_soft_shadow_is_no_part() -> None:
    images = parts(8, seed=1)
    shadow = disc(54.0) & ~disc()
    images = torch.where(shadow, images - 0.12, images)
    generator = RuleBasedGenerator(["uneven"], size=(0.3, 0.5), strength=(1.0, 1.0)).prepare(images)
    sample = generator(images, seeds=range(8))
    assert sample.accepted.any()
    assert not ((sample.mask > 0) & ~disc(46.0)).any()


def test_a_mask_of_the_part_is_the_limit_when_it_is_given(tmp_path) -> None:
    from PIL import Image

    Image.fromarray((disc()[0, 0].numpy() * 255).astype("uint8")).save(tmp_path / "part.png")
    images = render_normals(8, 3, SIDE, SIDE)
    generator = RuleBasedGenerator(["stain", "scratch", "nsa"], foreground=tmp_path / "part.png", size=(0.2, 0.5))
    sample = generator(images, seeds=range(8))
    assert sample.accepted.any()
    assert not ((sample.image != sample.source).any(1, keepdim=True) & ~disc()).any()


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("family", PHYSICAL)
def test_colours_stay_near_grey_when_the_product_is_grey(family: str, prepared: bool) -> None:
    tint = torch.tensor([0.01, 0.0, -0.01]).view(1, 3, 1, 1)  # a colour camera, not a grey one
    images = (render_normals(24, 1, 96, 96).expand(-1, 3, -1, -1) + tint).contiguous()
    generator = RuleBasedGenerator([family], strength=(1.0, 1.0))
    if prepared:
        generator.prepare(images[:6])
    sample = generator(images, seeds=range(24))
    assert sample.accepted.any()
    assert float(chroma(sample.image).max()) < 0.2
    assert all(drop_colours(text) == text for text in sample.caption)


def test_colours_are_free_when_the_product_is_colourful() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 12, 12, generator=rng).repeat_interleave(8, 2).repeat_interleave(8, 3)
    sample = RuleBasedGenerator(["stain", "fibre"], strength=(1.0, 1.0)).prepare(images)(images, seeds=range(8))
    grey = RuleBasedGenerator(["stain", "fibre"])
    grey.prepare(images.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous())
    assert any(drop_colours(text) != text for text in sample.caption)
    assert all(p["hue"] == 1 for _, p in (grey.replace().prepare(images).make_params(s, 96, 96) for s in range(8)))
    assert any(p["hue"] < 0.5 for _, p in (grey.make_params(s, 96, 96) for s in range(20)))


def test_regional_families_are_drawn_when_they_are_named_and_not_otherwise() -> None:
    regional = {"uneven", "wear", "streaks", "fray"}
    assert regional <= set(RuleBasedGenerator.available_families())
    assert set(RuleBasedGenerator().families) == set(RuleBasedGenerator.available_families()) - regional
    assert set(RuleBasedGenerator(["wear", "dent"]).families) == {"wear", "dent"}


def test_sizes_are_log_uniform_and_lengths_reach_across_the_image() -> None:
    frame = Frame(height=256, width=256, size=RuleBasedGenerator().size)
    rng = RandomStream(0)
    sizes = sorted(frame.draw_size(rng) / 256 for _ in range(2000))
    low, high = frame.size
    assert sizes[1000] == pytest.approx(math.sqrt(low * high), rel=0.1)
    assert sizes[500] == pytest.approx(low**0.75 * high**0.25, rel=0.1)
    assert low**2 <= 1.2e-3
    lengths = [REGISTRY["scratch"].draw(RandomStream(seed), frame)["length"] for seed in range(300)]
    assert max(lengths) > 0.8 * 256
    assert min(lengths) < 0.2 * 256
