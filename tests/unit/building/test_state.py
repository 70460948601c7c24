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
