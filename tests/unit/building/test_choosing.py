"""Which model is taken, and the grounds that are given."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_synth.building.choosing import Scores, auroc, choose, lead


def make_scores(
    gap: float, *, real: float | None = None, count: int = 12, seconds: float = 0.1, seed: int = 0
) -> Scores:
    """Scores whose defects lie higher than good images by so many deviations."""
    random = np.random.default_rng(seed)
    return Scores(
        good=random.normal(0, 1, 40).tolist(),
        synthetic=random.normal(gap, 1, 80).tolist(),
        real=[] if real is None else random.normal(real, 1, count).tolist(),
        seconds=seconds,
    )


def test_discriminative_padim_is_taken_when_nothing_is_surely_better() -> None:
    scores = {
        "discriminative_padim": make_scores(1.0),
        "patchcore": make_scores(1.0, seed=1),
        "padim": make_scores(0.5),
    }
    taken, grounds, standings = choose(scores)
    assert taken == "discriminative_padim"
    assert "no other model finds surely more" in grounds
    assert [standing.name for standing in standings] == list(scores)
    assert standings[0].against == {}


def test_other_model_is_taken_when_it_finds_surely_more() -> None:
    scores = {"discriminative_padim": make_scores(0.5), "patchcore": make_scores(2.5)}
    taken, grounds, _ = choose(scores)
    assert taken == "patchcore"
    assert "drawn defects" in grounds
    assert "surely better" in grounds


def test_real_defects_decide_when_there_are_enough() -> None:
    scores = {
        "discriminative_padim": make_scores(2.0, real=0.2, count=30),
        "padim": make_scores(1.0, real=3.0, count=30),
    }
    taken, grounds, _ = choose(scores)
    assert taken == "padim"
    assert "real defects" in grounds
    few = {name: make_scores(2.0, real=3.0 if name == "padim" else -1.0, count=3) for name in scores}
    taken, grounds, _ = choose(few)
    assert taken == "discriminative_padim"
    assert "3 real defects are too few to count in the choice" in grounds


def test_faster_one_is_taken_when_the_built_in_models_are_level() -> None:
    scores = {"patchcore": make_scores(2.0, seconds=0.3), "padim": make_scores(2.0, seconds=0.1)}
    assert choose(scores)[0] == "padim"
    assert (
        choose({"patchcore": make_scores(2.0, seconds=0.3), "padim": make_scores(0.5, seconds=0.1)})[0] == "patchcore"
    )
    assert choose({"padim": make_scores(1.0)})[1] == "PaDiM is the only model that was trained."


def test_auroc_is_that_of_sklearn_when_scores_tie() -> None:
    good, bad = [0.0, 1.0, 1.0, 2.0], [1.0, 2.0, 3.0]
    value, low, high = auroc(good, bad)
    assert value == pytest.approx(roc_auc_score([0] * 4 + [1] * 3, [*good, *bad]))
    assert low <= value <= high
    assert all(np.isnan(auroc(good, [])))


def test_lead_is_that_of_pairs_when_both_saw_the_same_images() -> None:
    scores = make_scores(1.0)
    moved = Scores(good=scores.good, synthetic=[each + 0.2 for each in scores.synthetic], real=[], seconds=0.1)
    gain, low, high = lead(moved, scores, "synthetic")
    assert 0 < low < gain < high
    assert lead(scores, scores, "synthetic") == (0.0, 0.0, 0.0)
