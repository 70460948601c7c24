"""The verdict of a build."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from anomalib_synth.building.reporting import _uses, judge
from anomalib_synth.calibration.statistics import Proportion


def make_built(*, strongest: int = 80, real: tuple[int, int] | None = None, because: str = "") -> SimpleNamespace:
    page = {
        "fit": not because, "because": because, "min_recall": 0.5, "strongest": Proportion(strongest, 100).to_dict(),
        "alarms": Proportion(1, 25).to_dict(), "real": real and {"found": Proportion(*real).to_dict()},
        "expected": {"of": 50, "low": 0, "high": 9},
    }  # fmt: skip
    return SimpleNamespace(taken="padim", page=page)


@pytest.mark.parametrize(
    ("options", "fit", "said"),
    [
        ({}, True, "PaDiM finds 80 of 100 of the strongest drawn defects (80 %; it is fit for use from 50 %)."),
        ({"real": (7, 10)}, True, "and 7 of 10 real ones that it has not learned"),
        ({"real": (0, 4)}, True, "and 0 of 4 real ones"),  # too few to say so
        ({"real": (4, 10)}, True, "and 4 of 10 real ones"),  # not surely less than half
        ({"real": (1, 12)}, False, "PaDiM finds 1 of 12 real defects, which is surely less than `min_recall` (50 %)"),
        ({"because": "it finds nothing."}, False, "PaDiM: it finds nothing."),
    ],
)
def test_verdict_follows_drawn_and_real_defects(options, fit, said) -> None:
    found, why = judge(make_built(**options))
    assert found is fit
    assert said in why
    assert ("1 of 25 good images gave a false alarm; expect 0 to 9 of the next 50." in why) is fit


def test_command_is_quoted_when_the_folder_has_a_space(tmp_path) -> None:
    built = SimpleNamespace(taken="discriminative_padim", exports={})
    out = tmp_path / "my detector; x"
    for use in _uses(built, SimpleNamespace(out=out)):
        words = shlex.split(use["command"])
        assert Path(words[words.index("--detector") + 1]) in {out, out / "detector"}
