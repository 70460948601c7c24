"""What a run of a comparison reports beside its metrics."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback

from anomalib_synth.calibration.defect_sets import halve_normals
from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.comparison.trial import _measure_held_out, _seconds_per_sample
from anomalib_synth.images import Normal, digest_image
from anomalib_synth.report.compare_files import show_number
from tests.conftest import save_images


def test_seconds_per_sample_is_over_all_that_was_drawn() -> None:
    first, second = SynthesisCallback(), SynthesisCallback()
    first.drawing_seconds, first.accepted_samples = 3.0, 1
    second.drawing_seconds, second.accepted_samples = 1.0, 3
    assert _seconds_per_sample([Callback(), first, second]) == 1.0


def test_seconds_per_sample_is_unknown_when_none_was_accepted() -> None:
    assert _seconds_per_sample([Callback()]) is None
    failing = SynthesisCallback()
    failing.drawing_seconds = 3.0
    assert _seconds_per_sample([failing]) is None


def test_small_numbers_keep_their_digits() -> None:
    assert [show_number(value) for value in (93.26, 0.0, 0.0234, -0.5, float("nan"), None)] == [
        "93.3", "0.0", "0.023", "-0.5", "n/a", "n/a"
    ]  # fmt: skip


def test_one_half_of_the_held_out_normals_sets_the_threshold_and_the_other_measures(tmp_path) -> None:
    levels = torch.linspace(0.1, 0.9, 22).view(-1, 1, 1, 1)
    save_images(tmp_path, levels.expand(-1, 3, 8, 8))
    paths = sorted(tmp_path.glob("*.png"))
    contents = [digest_image(path) for path in paths]
    scores = [float((7 * n) % 22) for n in range(22)]
    held_out = {  # the last one has a defect; the first one is there twice
        "paths": [*map(str, paths), str(paths[0])], "scores": [*scores, 99.0], "labels": [*[False] * 21, True, False]
    }  # fmt: skip
    normals = [Normal(path=path, name="", content=content) for path, content in zip(paths, contents, strict=True)][:21]
    by_content = dict(zip(contents, scores, strict=True))
    choose, measure = ([by_content[each.content] for each in half] for half in halve_normals(normals, 5))
    found = _measure_held_out(held_out, [0.5, 30.0], [30.0], rate=0.3, seed=5)
    assert (found["threshold_normals"], found["measured_normals"]) == (10, 11)
    threshold = sorted(choose)[7]  # rank ceil(11 * 0.7) of 10
    alarms = sum(score > threshold for score in measure)
    assert (found["threshold"], found["false_alarms"]) == (threshold, pytest.approx(alarms / 11))
    assert alarms / 11 != sum(score > threshold for score in choose) / 10
    assert (found["recall"], found["false_alarms_on_test"]) == (1.0, 0.5)
