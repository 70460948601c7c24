"""What commands say of files that they leave out."""

from __future__ import annotations

import pytest

from anomalib_synth.images import describe_left_out, warn_of_left_out


def test_files_are_counted_when_many_have_one_reason() -> None:
    left_out = {f"{n}.png": f"{n} bytes are missing" for n in range(9)}
    named = "0.png, 1.png, 2.png, 3.png, 4.png and 4 more files"
    assert describe_left_out(left_out, "images") == [
        f"Left out {named} of `images`: 0 bytes are missing (the first; the others are alike)."
    ]


def test_no_file_is_lost_when_there_are_many_reasons() -> None:
    left_out = {f"{n}.png": "x" * (n + 1) for n in range(15)}
    lines = describe_left_out(left_out, "images")
    assert len(lines) == 13
    assert lines[-1] == "Left out 3 more files of `images` for other reasons."


@pytest.mark.parametrize("name", ["a\nb.gif", "a\x1b[31m.gif", "a\r.gif"])
def test_a_name_is_one_line_when_it_holds_control_characters(name) -> None:
    (line,) = describe_left_out({name: "not read"}, "normals")
    assert line.isprintable()


def test_a_folder_is_spoken_of_once_when_it_is_listed_again(caplog) -> None:
    for _ in range(2):
        warn_of_left_out({"a.gif": "not read, once"}, "texture_dir")
    assert caplog.messages == ["Left out a.gif of `texture_dir`: not read, once."]
