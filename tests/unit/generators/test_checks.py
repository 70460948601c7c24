"""The honest-mask checks against hand-worked windows: what is measured, and which limit refuses what."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.generators import SampleChecks
from anomalib_synth.generators.checks import CheckResult

SIDE, PIXELS = 16, 1024
GREY = 1 / 255


def check(
    change: float,
    *,
    square: int = 8,
    support: int = 8,
    part: int = SIDE,
    noise: float = 0.0,
    limits: SampleChecks | None = None,
) -> CheckResult:
    """A grey window of which a square of the support changed by so much; the part is its first columns."""
    source = torch.full((1, 3, SIDE, SIDE), 0.5)
    changed, meant, foreground = source.clone(), torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    changed[..., 4 : 4 + square, 4 : 4 + square] += change
    meant[..., 4 : 4 + support, 4 : 4 + support] = 1
    foreground[..., :part] = 1
    return (limits or SampleChecks())(
        source, changed, meant > 0, foreground=foreground, noise=torch.tensor([noise]), image_pixels=PIXELS
    )


def test_window_is_measured_as_by_hand() -> None:
    # All 64 pixels of the support changed by 20 grey levels; the floor is the noise of 3 levels and 2 more.
    result = check(20 * GREY, noise=3 * GREY, part=8, limits=SampleChecks(min_foreground=0.5))
    assert result.reason == [""]
    assert int(result.mask.sum()) == 64
    found = result.measured[0]
    assert found["area"] == pytest.approx(64 / PIXELS)
    assert found["visibility"] == pytest.approx(4, rel=1e-4)
    assert found["agreement"] == 1
    assert found["foreground"] == pytest.approx(0.5)
    assert float(result.quality[0]) == pytest.approx(4 / 5, rel=1e-4)


def test_quality_rises_with_visibility_and_with_agreement() -> None:
    faint, plain, strong = (float(check(levels * GREY).quality[0]) for levels in (4, 12, 60))
    assert 0 < faint < plain < strong < 1
    half, whole = (check(40 * GREY, square=square) for square in (4, 8))
    assert half.measured[0]["agreement"] < 0.5 < whole.measured[0]["agreement"]
    assert half.measured[0]["visibility"] == pytest.approx(whole.measured[0]["visibility"], rel=0.5)
    assert float(half.quality[0]) < 0.7 * float(whole.quality[0])


@pytest.mark.parametrize(
    ("window", "limits", "reason"),
    [
        ({"change": 0.0}, {}, "nothing changed visibly"),
        ({"change": 0.2}, {"area": (0.1, 0.6)}, "mask area 0.062 outside [0.1, 0.6]"),
        ({"change": 0.2}, {"area": (1e-4, 0.05)}, "mask area 0.062 outside [0.0001, 0.05]"),
        ({"change": 0.04, "noise": 0.1}, {"min_visibility": 0.6}, "visibility 0.37 below 0.6"),
        ({"change": 0.2, "square": 2}, {}, "mask agreement 0.06 below 0.2"),
        ({"change": 0.2, "part": 8}, {}, "foreground share 0.50 below 0.6"),
    ],
)
def test_each_limit_refuses_what_breaks_it_and_nothing_else_does(window, limits, reason) -> None:
    assert check(**window, limits=SampleChecks(**limits)).reason == [reason]
    loose = {"min_visibility": 0.0, "min_agreement": 0.0, "min_foreground": 0.0, "area": (0.0, 1.0)}
    if window["change"]:
        assert check(**window, limits=SampleChecks(**loose)).reason == [""]


@pytest.mark.parametrize("name", ["visibility", "agreement", "foreground"])
def test_limit_is_kept_by_what_just_reaches_it(name) -> None:
    measured = {"area": 0.1, "visibility": 5.0, "agreement": 0.5, "foreground": 0.5} | {name: 0.25}
    limits = {"min_visibility": 0.25, "min_agreement": 0.25, "min_foreground": 0.25}
    assert SampleChecks(**limits).judge(**measured) == ""
    assert name in SampleChecks(**{**limits, f"min_{name}": 0.26}).judge(**measured)


def test_mask_leaves_out_what_changed_outside_the_support_and_what_did_not_change() -> None:
    result = check(0.2, square=8, support=4, limits=SampleChecks(min_foreground=0.0))
    assert int(result.mask.sum()) == 16
    result = check(0.2, square=4, support=8, limits=SampleChecks(min_foreground=0.0))
    assert int(result.mask.sum()) == 16
