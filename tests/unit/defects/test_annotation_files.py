"""Whatever a file of annotations holds, it gives defects or a ValueError that names it."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomalib_synth.defects import annotation_files, list_defects
from anomalib_synth.defects.annotation_files import AnnotationFile
from tests.unit.defects.annotated import SIZE, coco, cvat, labelme, save_image, save_text

QUIET = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ["a.json", "a.txt", "annotations.json", "annotations.xml", "data.yaml"]
ODD = [
    None, True, -1, 0, 1e300, -1e300, 10**400, 0.5, "", "x", "a.png", "\ud800", "\0", [], {}, [[]], [{}], [1],
    [1, 2, 3, 4], {"size": [40, 60], "counts": "x"}, {"size": [2**40, 2**40], "counts": [1]}, "../a.png",
    [[1, 2], [3, 4]],
]  # fmt: skip
WHOLE = {
    "annotations.json": coco(
        [
            {"bbox": [1, 1, 5, 5]},
            {"segmentation": [[1, 1, 9, 1, 9, 9]]},
            {"segmentation": {"size": list(SIZE), "counts": [5, 2395]}},
            {"segmentation": {"size": list(SIZE), "counts": "52203"}},
        ]
    ),
    "a.json": labelme(
        [
            {"shape_type": kind, "points": [[1, 1], [5, 9], [9, 3]][:count]}
            for kind, count in (("polygon", 3), ("rectangle", 2), ("circle", 2), ("point", 1), ("linestrip", 3))
        ]
        + [{"shape_type": "mask", "points": [[1, 1], [5, 9]], "mask": "aGVsbG8="}],
    ),
}
CVAT = cvat(
    '<box label="a" xtl="1" ytl="1" xbr="9" ybr="9" rotation="5"/><polygon label="a" points="1,1;9,1;9,9"/>'
    '<mask label="a" rle="1,3" left="1" top="1" width="2" height="2"/><ellipse label="a" cx="9" cy="9" rx="3" ry="2"/>'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("odd")
    save_image(path / "marks" / "a.png")
    return path


def read_strictly(folder: Path, name: str, data: bytes) -> None:
    """Read an image whose annotation has these bytes."""
    for path in (folder / "marks").glob("*.[jtxy]*"):
        path.unlink()
    (folder / "marks" / name).write_bytes(data)
    if name == "data.yaml":
        save_text(folder / "marks" / "a.txt", "1 0.5 0.5 0.1 0.1")
    for defect in list_defects(folder / "marks", marks=folder / "marks"):
        assert defect.read_marks().shape == SIZE
        defect.read_masks()


def read(folder: Path, name: str, data: bytes) -> None:
    """Read the same: there are defects, or the error names a file."""
    fault = ""
    try:
        read_strictly(folder, name, data)
    except ValueError as error:
        fault = str(error)
    assert not fault or str(folder) in fault


@pytest.mark.parametrize("name", NAMES)
@QUIET
@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))))
def test_there_are_defects_or_a_value_error_when_a_file_holds_any_bytes(folder, name, data) -> None:
    read(folder, name, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["images", "annotations", "shapes", "points", "id", "label", "names", "0"]), inner
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("name", ["a.json", "annotations.json", "data.yaml"])
@QUIET
@given(content=JSON)
def test_there_are_defects_or_a_value_error_when_a_file_holds_any_json(folder, name, content) -> None:
    read(folder, name, json.dumps(content).encode())


@pytest.mark.parametrize("name", sorted(WHOLE))
@QUIET
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 3))
def test_odd_values_give_defects_or_a_value_error_when_a_file_is_whole_otherwise(folder, name, seed, changes) -> None:
    content, rng = copy.deepcopy(WHOLE[name]), random.Random(seed)
    for _ in range(changes):
        place, node = None, content
        while isinstance(node, dict | list) and node and (place is None or rng.random() < 0.8):
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            place, node = (node, key), node[key]
        if place is not None and rng.random() < 0.2:
            del place[0][place[1]]
        elif place is not None:
            place[0][place[1]] = copy.deepcopy(rng.choice(ODD))
    read(folder, name, json.dumps(content).encode())


@QUIET
@given(seed=st.integers(0, 2**32))
def test_odd_values_give_defects_or_a_value_error_when_xml_is_whole_otherwise(folder, seed) -> None:
    rng, pieces = random.Random(seed), CVAT.split('"')
    for _ in range(rng.randint(1, 3)):
        pieces[rng.randrange(1, len(pieces), 2)] = rng.choice(
            ["", "x", "-1", "1e999", "nan", "1,2", ";", "9" * 50, "²", "0"]
        )
    read(folder, "annotations.xml", '"'.join(pieces).encode())


@QUIET
@given(
    lines=st.lists(
        st.lists(st.sampled_from(["0", "1", "0.5", "-1", "2", "1e9", "nan", "²", "x", "1_0"]), max_size=9), max_size=3
    )
)
def test_any_numbers_give_defects_or_a_value_error_when_they_are_labels(folder, lines) -> None:
    read(folder, "a.txt", "\n".join(" ".join(line) for line in lines).encode())


@pytest.mark.parametrize("name", ["a.json", "annotations.json", "annotations.xml", "a.txt"])
def test_a_file_is_refused_when_it_is_too_large(folder, name, monkeypatch) -> None:
    monkeypatch.setattr(annotation_files, "MAX_BYTES", 40)
    save_image(folder / "large" / "a.png")
    for path in (folder / "large").glob("a*.[jtx]*"):
        path.unlink()
    save_text(folder / "large" / name, "0 0.5 0.5 0.1 0.1 " * 3)
    with pytest.raises(ValueError, match=r"has more than .* MiB"):
        list_defects(folder / "large", marks=folder / "large")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"[" * 200_000),
        ("a.json", b'{"shapes": [], "x": ' + b"[" * 500 + b"]" * 500 + b"}"),
        ("a.json", b'{"shapes": ' + b"9" * 5000 + b"}"),
        ("annotations.json", b'{"images": [], "annotations": [], "x": 1e999}'),
        ("annotations.xml", b'<?xml version="1.0" encoding="utf-7"?><annotations/>'),
        ("annotations.xml", b'<?xml version="1.0" encoding="rot13"?><annotations/>'),
        ("data.yaml", b'names: ["\\UFFFFFFFF"]'),
        ("data.yaml", b'names: ["\\U00110000"]'),
        ("data.yaml", b"names: " + b"[" * 5000),
    ],
)
def test_a_file_is_refused_when_its_parser_would_fail_otherwise(folder, name, data) -> None:
    with pytest.raises(ValueError, match=re.escape(name)):
        read_strictly(folder, name, data)


def test_a_file_is_refused_when_it_cannot_be_opened(tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        AnnotationFile(tmp_path, "marks").read_text()


def test_a_file_is_read_when_it_begins_with_a_byte_order_mark(tmp_path) -> None:
    save_image(tmp_path / "a.png")
    content = json.dumps(labelme([{"shape_type": "point", "points": [[1, 1]]}]))
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert [defect.kind for defect in list_defects(tmp_path)] == ["point"]
