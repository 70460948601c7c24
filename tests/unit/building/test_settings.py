"""What a build may be asked for, and where it may write: nothing of the user's is replaced."""

from __future__ import annotations

import math

import pytest

from anomalib_synth.building.settings import BuildSettings


def make(tmp_path, normals: str = "good", out: str = "out", **options) -> BuildSettings:
    given = {name: tmp_path / value if name in {"defects", "marks"} else value for name, value in options.items()}
    return BuildSettings(normals=tmp_path / normals, out=tmp_path / out, generator={}, **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"normals": "data/images/train", "out": "data"},
            "`normals` must lie outside the folders that the build fills",
        ),
        ({"normals": "data/images", "out": "data"}, "`normals` must lie outside the folders that the build fills"),
        ({"normals": "data/detector/x", "out": "data"}, "`normals` must lie outside the folders that the build fills"),
        ({"defects": "out/images/defects"}, "`defects` must lie outside the folders that the build fills"),
        ({"defects": "bad", "marks": "out/work/marks"}, "`marks` must lie outside the folders that the build fills"),
        ({"out": "good/out"}, "`out` must lie outside `normals`"),
        ({"defects": "bad", "out": "bad"}, "`out` must lie outside `defects`"),
    ],
)
def test_folder_is_refused_when_the_build_would_replace_its_files(options, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **options)
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / options.get("out", "out") / "build.json").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / options.get("out", "out") / "build.json").touch()  # of a build, which makes it no better
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **options)


@pytest.mark.parametrize("name", ["images/mine.png", "candidates/x", "detector/model.onnx", "work/x", "report.html"])
def test_folder_is_refused_when_it_holds_what_no_build_wrote(name, tmp_path) -> None:
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).touch()
    with pytest.raises(ValueError, match=r"`out` .* holds .*, which no build wrote"):
        make(tmp_path)
    (tmp_path / "out" / "build.json").touch()
    make(tmp_path)


def test_normals_are_taken_when_they_lie_beside_what_is_filled(tmp_path) -> None:
    (tmp_path / "data" / "good").mkdir(parents=True)
    assert make(tmp_path, "data/good", "data", defects="data/bad").models


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": math.inf}, "`minutes` must be > 0 and at most"),
        ({"minutes": math.nan}, "`minutes` must be > 0 and at most"),
        ({"minutes": 1e308}, "`minutes` must be > 0 and at most"),
        ({"seed": -1}, "`seed` must be in 0"),
        ({"seed": 2**32}, "`seed` must be in 0"),
        ({"false_alarm_rate": 1e-320}, "`false_alarm_rate` must be in"),
        ({"bit_depth": 7}, "`bit_depth` must be in 8"),
        ({"accelerator": "tpu"}, "`accelerator` must be"),
    ],
)
def test_value_is_refused_when_a_later_step_would_fail_on_it(options, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **options)


def test_gpu_is_refused_when_there_is_none(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="`accelerator` is gpu, but there is none"):
        make(tmp_path, accelerator="gpu")


def test_kinds_are_exported_once_when_they_are_named_twice(tmp_path) -> None:
    assert make(tmp_path, exports=("openvino", "torch", "openvino")).exports == ("torch", "openvino")


def test_expression_is_refused_when_it_is_none(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"`group_by` must be a regular expression, got 'tile\(': missing \)"):
        make(tmp_path, group_by="tile(")
