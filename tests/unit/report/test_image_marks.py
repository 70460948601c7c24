"""LabelMe documents and masks: what is read, what is refused, what is written."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalib_synth.report.image_marks import (
    ImageMarks,
    check_type,
    encode_document,
    encode_mask,
    new_shape,
    read_document,
)

SIZE = (40, 60)
BOX = new_shape("rectangle", [[1.0, 2.0], [10.0, 12.0]], "dent")


def mark(document: dict | None = None, *, spot: bool = False) -> ImageMarks:
    mask = np.zeros(SIZE, bool)
    mask[5:9, 5:9] = spot
    return ImageMarks(mask=mask, document=document or {})


def encode(marks: ImageMarks, tmp_path) -> dict | None:
    data = encode_document(
        marks, file=tmp_path / "out" / "x" / "a.json", image=tmp_path / "in" / "a.png", folder_type="dent"
    )
    return None if data is None else json.loads(data)


def test_document_is_one_of_labelme_when_a_box_is_saved(tmp_path) -> None:
    saved = encode(mark({"shapes": [BOX]}), tmp_path)
    assert (saved["imageHeight"], saved["imageWidth"], saved["imageData"]) == (40, 60, None)
    assert saved["imagePath"] == "../../in/a.png"
    assert saved["shapes"] == [BOX]
    assert saved["version"].startswith("5.")
    assert read_document(json.dumps(saved).encode(), SIZE) == saved


def test_no_document_is_needed_when_the_folder_names_the_type_of_the_mask(tmp_path) -> None:
    assert encode(mark({"flags": {"type": "dent"}}, spot=True), tmp_path) is None
    assert encode(mark({"flags": {"type": "crack"}}, spot=True), tmp_path)["flags"] == {"type": "crack"}
    assert encode(mark({"flags": {"type": "crack"}}), tmp_path) is None  # of no mask


def test_fields_of_others_stay_when_a_document_is_saved(tmp_path) -> None:
    document = {"flags": {"checked": True}, "shapes": [], "camera": "left"}
    saved = encode(mark(document), tmp_path)
    assert (saved["camera"], saved["flags"]) == ("left", {"checked": True})


def test_mask_is_black_and_white_at_the_images_size_when_saved() -> None:
    saved = np.asarray(Image.open(BytesIO(encode_mask(mark(spot=True)))))
    assert (saved.shape, np.unique(saved).tolist(), (saved > 0).sum()) == (SIZE, [0, 255], 16)
    assert encode_mask(mark()) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a LabelMe file"),
        (b'{"a": 1}', "must have the fields of a LabelMe file"),
        (b'{"shapes": [{"label": "a", "points": [[1]]}]}', "has `shapes`"),
        (b'{"shapes": [{"label": "a", "points": [[1, NaN]]}]}', "is not JSON"),
        (b'{"shapes": [], "flags": 3}', "has `flags`"),
        (b'{"shapes": [], "imageHeight": 60, "imageWidth": 40}', "is for an image of 40 x 60 pixels"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_document_is_refused_when_it_is_none_of_this_image(data, message) -> None:
    with pytest.raises(ValueError, match=message):
        read_document(data, SIZE)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_document_is_read_or_refused_when_it_holds_anything(data) -> None:
    with suppress(ValueError):
        assert "shapes" in read_document(data, SIZE)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", ".x", "good", "a\nb", "a\\b", "x" * 81, "\ud800"])
def test_type_is_refused_when_no_folder_could_have_its_name(name) -> None:
    with pytest.raises(ValueError, match="`type` must name"):
        check_type(name)


def test_type_loses_the_blanks_around_it_when_it_has_some() -> None:
    assert check_type("  Kratzer, tief ") == "Kratzer, tief"


def test_marks_are_refused_when_nothing_could_read_them_back() -> None:
    with pytest.raises(ValueError, match="marks every pixel"):
        ImageMarks(mask=np.ones(SIZE, bool), document={}).check()
    with pytest.raises(ValueError, match="at most 253 boxes"):
        mark({"shapes": [BOX] * 254}).check()
    mark({"shapes": [BOX] * 253}).check()
