"""What a build remembers."""

from __future__ import annotations

import pytest

from anomalib_synth.building.state import BuildState


def test_step_is_found_when_inputs_and_files_are_as_they_were(tmp_path) -> None:
    made = tmp_path / "made"
    made.write_text("")
    BuildState(tmp_path / "build.json").save("train", {"seed": 0}, {"a": 1}, seconds=2.0)
    state = BuildState(tmp_path / "build.json")
    assert state.find("train", {"seed": 0}, (made,)) == {"a": 1}
    assert state.seconds("train") == 2
    assert state.find("train", {"seed": 1}, (made,)) is None
    assert state.find("other", {"seed": 0}) is None
    made.unlink()
    assert state.find("train", {"seed": 0}, (made,)) is None


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0, "steps": {}}', '{"format": 1, "steps": {"a": 5}}'])
def test_build_begins_anew_when_its_file_is_damaged(content, tmp_path) -> None:
    (tmp_path / "build.json").write_text(content)
    assert BuildState(tmp_path / "build.json").steps == {}


def test_step_is_forgotten_on_the_disk_when_it_begins_again(tmp_path) -> None:
    state = BuildState(tmp_path / "build.json")
    state.save("calibrate", {"rate": 0.05}, True, seconds=1.0)
    state.save("plan", {}, True, seconds=1.0)
    state.forget("calibrate")
    state.forget("never done")
    again = BuildState(tmp_path / "build.json")
    assert again.find("calibrate", {"rate": 0.05}) is None
    assert again.find("plan", {}) is True
