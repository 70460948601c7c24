"""What is measured of one run, by hand; a metric of one's own is one entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.comparison.trial_metrics import (
    METRICS,
    Metric,
    ModelOutputs,
    image_auroc,
    measure,
    measure_threshold,
)


def measure_maps(maps: torch.Tensor, masks: torch.Tensor) -> dict[str, float | None]:
    """Measure maps alone: the images' scores and labels are the same ones each time."""
    found = measure(ModelOutputs(scores=[0.0, 1.0], labels=[False, True], maps=maps, masks=masks))
    return {name: value for name, value in found.items() if name != "image_auroc"}


def test_image_auroc_counts_ordered_pairs() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 6, 40).astype(float), random.random(40) < 0.4
    pairs = [(d > g) + 0.5 * (d == g) for d in scores[labels] for g in scores[~labels]]
    assert image_auroc(ModelOutputs(scores=scores.tolist(), labels=labels.tolist())) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="good and defective"):
        ModelOutputs(scores=[0.1, 0.2], labels=[True, True])


def test_pixel_metrics_equal_those_worked_by_hand() -> None:
    masks = torch.zeros(1, 2, 5)
    masks[0, 0, 0] = masks[0, 1, 4] = 1  # two defects of one pixel
    maps = torch.tensor([[[0.9, 0.1, 0.2, 0.0, 0.05], [0.15, 0.8, 0.3, 0.25, 0.5]]])
    found = measure_maps(maps, masks)
    # Ranked: defect .9, good .8, defect .5, seven good. The first defect is above 8 good pixels, the second above 7.
    assert found["pixel_auroc"] == pytest.approx((8 + 7) / 16)
    assert found["pixel_ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    # Overlap .5 until one of eight good pixels is taken, 1 from there on (the step is at 1/8): area up to .3.
    assert found["aupro"] == pytest.approx((0.5 / 8 + (0.3 - 1 / 8)) / 0.3, abs=1e-5)


def test_perfect_map_has_every_region_when_a_mask_fills_its_image() -> None:
    masks = torch.zeros(3, 6, 6)
    masks[0] = masks[1, :2, :2] = masks[1, 4, 4] = 1
    assert measure_maps(masks + 0.1, masks)["aupro"] == pytest.approx(1.0)


def test_pixel_metrics_are_left_out_when_there_is_no_mask() -> None:
    assert measure_maps(torch.rand(2, 4, 4), torch.zeros(2, 4, 4)) == {
        "pixel_auroc": None, "pixel_ap": None, "aupro": None
    }  # fmt: skip


def test_maps_are_resized_to_the_masks() -> None:
    masks = torch.zeros(1, 8, 8)
    masks[0, :4] = 1
    assert measure_maps(masks[:, ::2, ::2], masks)["pixel_auroc"] == pytest.approx(1.0)


def test_threshold_is_set_on_one_half_and_measured_on_the_other() -> None:
    choose = [float(score) for score in range(1, 20)]  # 10 % of 19: rank ceil(20 * 0.9) = 18
    found = measure_threshold(choose, [17.0, 18.0, 18.5, 30.0], [1.0, 19.0], [18.0, 18.1, 40.0], 0.1)
    assert found["threshold"] == 18.0
    assert (found["recall"], found["false_alarms"], found["false_alarms_on_test"]) == pytest.approx((2 / 3, 0.5, 0.5))


def test_metric_is_a_column_when_it_has_an_entry(monkeypatch) -> None:
    def share_of_top(tested: ModelOutputs) -> float:
        """Share of defects among as many images as there are defects, by score."""
        order = np.argsort(tested.scores)[::-1][: sum(tested.labels)]
        return float(np.asarray(tested.labels)[order].mean())

    monkeypatch.setitem(METRICS, "top", Metric(label="share of defects on top", measure=share_of_top))
    outputs = ModelOutputs(scores=[0.9, 0.8, 0.7, 0.1], labels=[True, False, True, False])
    assert measure(outputs) == {"image_auroc": 0.75, "pixel_auroc": None, "pixel_ap": None, "aupro": None, "top": 0.5}
