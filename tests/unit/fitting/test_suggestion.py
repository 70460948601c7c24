"""Which families resemble real defects: measured by hand, and told apart where they were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anomalib_synth.fitting.defect_measures import MEASURES, measure_defect, outline_in_box, to_vector
from anomalib_synth.fitting.suggestion import DrawnDefect, draw_references, make_overlay, suggest_families
from anomalib_synth.generators import build_generator
from anomalib_synth.generators.prepared import PreparedNormals
from tests.contract import render_normals

FAMILIES = ["scratch", "stain", "hole", "noise", "streaks", "cutout"]


def square(change: float = -0.2, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A grey image of 64 x 64 with a square that is darker, and its mask."""
    image, mask = np.full((64, 64, 3), 0.5, np.float32), np.zeros((64, 64), bool)
    mask[20 : 20 + side, 24 : 24 + side] = True
    image[mask] += change
    return image, mask


def test_a_square_is_measured_as_by_hand() -> None:
    found = measure_defect(*square())
    assert set(found) == set(MEASURES)
    assert found["size"] == pytest.approx(16 / 64)
    assert found["elongation"] == pytest.approx(1)
    assert found["length"] == pytest.approx(4 * math.sqrt(16 * 16 / 12) / 64, rel=0.01)
    assert found["fill"] == found["pieces"] == 1
    assert found["brightness"] == pytest.approx(-0.2, abs=1e-5)
    assert found["contrast"] == pytest.approx(0.2, abs=1e-5)
    assert found["chroma"] == pytest.approx(0, abs=1e-5)
    assert found["sharpness"] > 0.15
    assert found["place"] == pytest.approx(20 / 64)


def test_colour_and_length_are_measured_when_a_red_line_crosses_the_image() -> None:
    image, mask = np.full((64, 96, 3), 0.5, np.float32), np.zeros((64, 96), bool)
    mask[30:32] = True
    image[mask] = (0.8, 0.4, 0.4)
    found = measure_defect(image, mask)
    assert found["chroma"] > 0.2
    assert found["elongation"] > 30
    assert found["length"] > 1.5
    assert found["place"] == 0


@pytest.mark.parametrize("mask", [np.ones((8, 8), bool), np.eye(8, dtype=bool) & (np.arange(8) == 3)])
def test_measures_are_finite_when_the_mask_is_everything_or_a_pixel(mask) -> None:
    assert np.isfinite(to_vector(measure_defect(np.random.default_rng(0).random((8, 8, 3), np.float32), mask))).all()


def test_a_defect_is_outlined_in_its_box() -> None:
    image, mask = square()
    box = np.zeros_like(mask)
    box[14:44, 16:48] = True
    found = outline_in_box(image, box)
    assert (found & mask).sum() / (found | mask).sum() > 0.7
    assert (outline_in_box(np.full_like(image, 0.5), box) == box).all()


@pytest.fixture(scope="module")
def drawn() -> list[list[DrawnDefect]]:
    """Defects of six families, twice: to compare with, and to be found."""
    normals = list(render_normals(4, 3, 96, 96))
    prepared = PreparedNormals.from_images(normals)
    return [draw_references(normals, prepared, FAMILIES, per_family=n, seed=seed) for seed, n in ((0, 30), (1, 15))]


def test_drawn_defects_are_traced_to_their_family_far_above_chance(drawn) -> None:
    references, unseen = drawn
    found = suggest_families([each.vector for each in unseen], references)
    right = [guess == each.family for guess, each in zip(found.nearest, unseen, strict=True)]
    assert np.mean(right) > 3 / len(FAMILIES)
    for family in FAMILIES:
        own = [ok for ok, each in zip(right, unseen, strict=True) if each.family == family]
        assert np.mean(own) > 1.5 / len(FAMILIES), family
    assert found.unlike < 0.25 * len(unseen)


def test_the_family_and_its_sizes_come_first_when_all_defects_are_of_one(drawn) -> None:
    references, unseen = drawn
    own = [each for each in unseen if each.family == "scratch" and each.size[0] < 0.05]
    found = suggest_families([each.vector for each in own], references)
    assert found.families[0].family == "scratch"
    assert found.families[0].share > 2 / len(FAMILIES)
    assert found.families[0].size[1] < 0.48
    assert sum(each.share for each in found.families) == pytest.approx(1)


def test_what_no_family_draws_is_said_to_be_unlike(drawn) -> None:
    odd = to_vector(dict.fromkeys(MEASURES, 40.0))
    assert suggest_families([odd], drawn[0]).unlike == 1
    with pytest.raises(ValueError, match="No drawn defect passed the checks"):
        suggest_families([odd], [])


def test_the_overlay_gives_the_generator_of_the_suggestion(drawn) -> None:
    found = suggest_families([each.vector for each in drawn[1]], drawn[0])
    generator = found.build()
    overlay = make_overlay(generator)["trainer"]["callbacks+"][0]["init_args"]["generator"]
    assert build_generator(overlay).config == generator.config
    sample = generator(render_normals(4, 3, 96, 96), seeds=range(4))
    assert sample.accepted.any()
