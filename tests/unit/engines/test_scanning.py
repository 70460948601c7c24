"""Finding the normals of a run."""

from __future__ import annotations

import shutil

import pytest
import yaml
from PIL import Image

from anomalib_synth.engines.scanning import list_datamodule, require_readable, scan
from anomalib_synth.images import ImageReader, allow_large_images, list_images
from tests.unit.images.bad_inputs import write_readable, write_unreadable


def test_every_bad_input_is_listed_with_a_reason_and_the_others_are_kept(tmp_path) -> None:
    good = write_readable(tmp_path / "normals" / "good")
    bad = write_unreadable(tmp_path / "normals" / "bad")
    (tmp_path / "normals" / "notes.txt").write_text("ignored")
    with allow_large_images():
        found = scan(list_images(tmp_path / "normals").files, reader=ImageReader(), workers=2)
    assert [normal.name for normal in found.normals] == sorted(f"good/{name}" for name in good)
    assert set(found.unreadable) == {f"bad/{name}" for name in bad}
    assert all(bad[name.removeprefix("bad/")] in reason for name, reason in found.unreadable.items())
    again = scan(list_images(tmp_path / "normals").files, reader=ImageReader(), workers=1, known=found.summary)
    assert again == found


def test_the_digest_follows_names_and_contents_when_files_change(tmp_path) -> None:
    write_readable(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def digest() -> str:
        return scan(list_images(tmp_path / "b").files, reader=ImageReader(), workers=1).digest

    before = digest()
    assert before == scan(list_images(tmp_path / "a").files, reader=ImageReader(), workers=2).digest
    (tmp_path / "b" / "grey.png").rename(tmp_path / "b" / "gray.png")
    renamed = digest()
    shutil.copy(tmp_path / "b" / "alpha.png", tmp_path / "b" / "palette.png")
    assert len({before, renamed, digest()}) == 3


@pytest.mark.parametrize(("make", "state"), [(True, "holds none"), (False, "is no folder")])
def test_a_folder_without_images_is_refused(tmp_path, make, state) -> None:
    if make:
        (tmp_path / "normals").mkdir()
    with pytest.raises(ValueError, match=f"`normals` must be a folder with images .* which {state}"):
        list_images(tmp_path / "normals")


def test_inputs_are_refused_when_none_is_readable(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must hold a readable image, none of the 1 is: 'a.png': the file is empty"):
        require_readable(scan(list_images(tmp_path).files, reader=ImageReader(), workers=1))


def test_names_are_written_out_when_they_are_not_utf8(tmp_path) -> None:
    good = write_readable(tmp_path)
    (tmp_path / "grey.png").rename(tmp_path / "gr\udce4y.png")
    found = scan(list_images(tmp_path).files, reader=ImageReader(), workers=1)
    assert len(found.normals) == len(good)
    assert "gr\\udce4y.png" in {normal.name for normal in found.normals}


@pytest.mark.parametrize("nested", [False, True])
def test_a_datamodule_gives_its_training_normals(parts_root, tmp_path, nested) -> None:
    described = {
        "class_path": "anomalib.data.Folder",
        "init_args": {
            "name": "part",
            "root": str(parts_root),
            "normal_dir": "train/good",
            "abnormal_dir": "test/spot",
        },
    }
    config = tmp_path / "data.yaml"
    config.write_text(yaml.safe_dump({"data": described} if nested else described))
    names = {path.name for path in list_datamodule(config).paths}
    assert names
    assert names <= {path.name for path in (parts_root / "train" / "good").iterdir()}
    assert all((parts_root / "train" / "good") == path.parent for path in list_datamodule(config).paths)


def test_masks_beside_their_images_are_no_normals_of_a_datamodule(tmp_path) -> None:
    for name in ("0.png", "1.png", "0_mask.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    data = {"name": "a", "normal_dir": str(tmp_path), "test_split_mode": "none", "val_split_mode": "none"}
    config = tmp_path / "data.yaml"
    config.write_text(yaml.safe_dump({"class_path": "anomalib.data.Folder", "init_args": data}))
    found = list_datamodule(config)
    assert list(found.files) == ["0.png", "1.png"]
    assert list(found.masks) == ["0_mask.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "readable YAML"),
        ("a: 1", "`class_path`"),
        ("{class_path: anomalib.data.Folder, init_args: {nme: x}}", "cannot be built: .*nme"),
    ],
)
def test_a_config_that_is_no_datamodule_is_refused(tmp_path, text, message) -> None:
    config = tmp_path / "data.yaml"
    config.write_text(text)
    with pytest.raises(ValueError, match=message):
        list_datamodule(config)
