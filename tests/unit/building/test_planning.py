"""How the time is divided, and that one bar tells how much is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from anomalib_synth.building.candidates import CORESET, MODELS, STEPS, order
from anomalib_synth.building.planning import make_plan
from anomalib_synth.building.speeds import Speeds
from anomalib_synth.building.timeline import Timeline

SPEEDS = Speeds(
    image=0.02, heads_image=0.1, new_step=0.3, old_step=0.15, patch=5e-7, draw=0.02, score=0.08, megabytes=180
)  # fmt: skip
COUNTS = {"train": 200, "validation": 30, "calibration": 50, "families": 24, "strengths": 6, "exports": True}


def test_everything_is_done_when_there_is_time() -> None:
    plan = make_plan(SPEEDS, MODELS, minutes=10, **COUNTS)
    assert not plan.left_out
    assert (plan.steps, plan.coreset) == (STEPS, CORESET)
    assert sum(plan.seconds.values()) <= 600


def test_less_is_done_when_there_is_less_time() -> None:
    long, short = (make_plan(SPEEDS, MODELS, minutes=minutes, **COUNTS) for minutes in (10, 5))
    assert short.steps < long.steps
    assert short.per_cell < long.per_cell
    assert sum(short.seconds.values()) < sum(long.seconds.values())


def test_coreset_shrinks_and_then_patchcore_is_left_out_when_the_normals_are_many() -> None:
    many = {**COUNTS, "train": 800}
    assert make_plan(SPEEDS, MODELS, minutes=12, **many).coreset < CORESET
    plan = make_plan(SPEEDS, MODELS, minutes=6, **{**COUNTS, "train": 6000})
    assert set(plan.left_out) >= {"patchcore"}
    assert "s are left" in plan.left_out["patchcore"]


def test_preferred_model_is_trained_when_nothing_fits() -> None:
    plan = make_plan(SPEEDS, MODELS, minutes=0.1, **COUNTS)
    assert set(plan.left_out) == {"patchcore", "padim"}
    assert "train discriminative_padim" in plan.seconds
    assert make_plan(SPEEDS, ["padim"], minutes=0.1, **COUNTS).left_out == {}


@pytest.mark.parametrize("given", [[], ["padim", "patchcor"]])
def test_models_are_refused_when_they_are_not_known(given) -> None:
    with pytest.raises(ValueError, match="`models` must name some of discriminative_padim, patchcore, padim"):
        order(given)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_follows_the_plan_and_then_the_pace_when_a_step_is_slower() -> None:
    clock = Clock()
    timeline = Timeline(Console(file=io.StringIO()), clock=clock)
    timeline.plan({"one": 100.0, "two": 50.0})
    timeline.start("one", "First")
    assert timeline.left == 150
    clock.now = 60.0
    timeline.advance(0.3)
    assert timeline.left == pytest.approx(60 / 0.3 * 0.7 + 50)
    assert timeline.share == pytest.approx(60 / (60 + 190))
    timeline.finish()
    assert timeline.left == 50
    timeline.skip("two")
    assert timeline.left == 0


def test_plain_lines_are_printed_when_there_is_no_terminal() -> None:
    clock, file = Clock(), io.StringIO()
    with Timeline(Console(file=file), clock=clock) as timeline:
        timeline.plan({"one": 100.0})
        timeline.start("one", "Training [x]")
        for clock.now in (5.0, 10.0, 20.0, 25.0):
            timeline.advance(clock.now / 100)
    assert file.getvalue().splitlines() == [
        "Training [x] ... (about 1 min 40 s left)",
        "  20% of this step, about 1 min 20 s left",
    ]
