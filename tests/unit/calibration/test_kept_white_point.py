"""White that is kept with a detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_synth.calibration.kept_white_point import keep_white_point, read_kept_white_point
from anomalib_synth.images import WhitePoint

TWELVE, TEN = WhitePoint.of_bit_depth(12), WhitePoint.of_bit_depth(10)


def test_white_point_is_read_when_it_lies_above_an_export(tmp_path) -> None:
    assert read_kept_white_point(tmp_path / "openvino" / "model.xml") == WhitePoint()
    keep_white_point(TWELVE, folder=tmp_path)
    assert read_kept_white_point(tmp_path / "openvino" / "model.xml") == TWELVE
    assert read_kept_white_point(tmp_path / "calibrated.ckpt", {}) == TWELVE


def test_checkpoint_has_the_last_word_when_both_hold_one(tmp_path) -> None:
    checkpoint: dict = {}
    keep_white_point(TWELVE, checkpoint=checkpoint)
    keep_white_point(TEN, folder=tmp_path)
    assert read_kept_white_point(tmp_path / "calibrated.ckpt", checkpoint) == TWELVE


def test_white_point_is_read_when_a_datamodule_kept_it() -> None:
    kept = {"SyntheticDataModule": {"white_point": TWELVE.to_dict()}}
    assert read_kept_white_point(Path("model.ckpt"), kept) == TWELVE
    assert read_kept_white_point(Path("model.ckpt"), {"SyntheticDataModule": {}}) == WhitePoint()
    with pytest.raises(ValueError, match=r"model\.ckpt' does not hold a white point"):
        read_kept_white_point(Path("model.ckpt"), {"SyntheticDataModule": {"white_point": [1]}})


@pytest.mark.parametrize("text", ["", "[]", "3", '{"integer": "white"}', '{"black": 3}'])
def test_damaged_white_point_is_refused_by_name(tmp_path, text) -> None:
    (tmp_path / "white_point.json").write_text(text)
    with pytest.raises(ValueError, match=r"white_point\.json.*`bit_depth`"):
        read_kept_white_point(tmp_path / "model.xml")
