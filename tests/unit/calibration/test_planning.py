"""What a calibration scored can be drawn once more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from anomalib_synth.calibration.defect_sets import KeptImages, halve_normals
from anomalib_synth.calibration.planning import ScoringPlan
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.images import Normal
from tests.conftest import save_images
from tests.contract import render_normals


@pytest.fixture
def plan(tmp_path) -> ScoringPlan:
    save_images(tmp_path, render_normals(6, 3, 48, 48, seed=1))
    normals = [Normal(path=path, name=path.name, content=path.name) for path in sorted(tmp_path.glob("*.png"))]
    return ScoringPlan(normals, [], RuleBasedGenerator(["hole", "stain"]), strengths=(0.4, 1.0), per_cell=5, seed=3)


def test_one_half_sets_the_threshold_and_the_other_measures_and_is_drawn_on(tmp_path) -> None:
    save_images(tmp_path, render_normals(7, 3, 48, 48, seed=1))
    normals = [Normal(path=path, name=path.name, content=path.name) for path in sorted(tmp_path.glob("*.png"))]
    generator = RuleBasedGenerator(["hole"])
    plan = ScoringPlan(normals, [], generator, strengths=(1.0,), per_cell=8, seed=3)
    assert len(list(plan.items(Progress(disable=True)))) >= 8
    choose, measure = ([str(normal.path) for normal in half] for half in halve_normals(normals, 3))
    assert (len(choose), len(measure)) == (3, 4)
    paths = {role: [row.path for row in plan.rows if row.role == role] for role in ("choose", "measure", "synthetic")}
    assert (paths["choose"], paths["measure"]) == (choose, measure)
    assert set(paths["synthetic"]) == set(measure)
    twin = RuleBasedGenerator(["hole"]).prepare(KeptImages("normals")(Path(path)) for path in choose)
    assert generator.prepare_digest == twin.prepare_digest  # it has not seen what measures


def test_defect_is_the_one_that_was_scored_when_it_is_drawn_again(plan) -> None:
    scored = {id(item.row): item for item in plan.items(Progress(disable=True))}
    wanted = [row for row in plan.rows if row.role == "synthetic" and row.visible][1::3]
    again = plan.draw_again(wanted)
    assert set(again) == {id(row) for row in wanted}
    for key, item in again.items():
        assert torch.equal(item.image, scored[key].image)
        assert torch.equal(item.mask, scored[key].mask)
