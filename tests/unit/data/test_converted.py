"""Images of more than 8 bits in a datamodule: copies of 8 bits take their place."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from anomalib.data import AnomalibDataModule, Folder
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.commands.convert import convert
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.generators import RealDefectGenerator, RuleBasedGenerator, StoredGenerator
from anomalib_synth.host.from_config import build_object
from anomalib_synth.store import SampleStore
from tests.contract import render_normals
from tests.unit.store.samples import make_record

SIDE = 64


def write_deep(folder: Path, count: int, *, bits: int = 12, first: int = 0) -> list[np.ndarray]:
    """Write grey 16-bit files of a camera; return their high bits."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, image in enumerate(render_normals(count, 3, SIDE, SIDE, seed=first), start=first):
        levels = (image[0].numpy() * 255).round().astype(np.uint8)
        levels[0, :4] = 255  # uses all bits
        Image.fromarray(levels.astype(np.uint16) << (bits - 8)).save(folder / f"{number:03d}.png")
        found.append(levels)
    return found


def write_defect(root: Path, *, bits: int = 12) -> Path:
    """Write a deep image with a defect, and its mask; return the folder of images."""
    write_deep(root / "test" / "cut", 1, bits=bits, first=50)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:30, 10:30] = 255
    (root / "ground_truth" / "cut").mkdir(parents=True)
    Image.fromarray(mask).save(root / "ground_truth" / "cut" / "050_mask.png")
    return root / "test"


def wrap(tmp_path: Path, generator=None, **options) -> SyntheticDataModule:
    base = Folder(
        name="part", root=tmp_path, normal_dir="good", num_workers=0, test_split_mode="none", val_split_mode="none"
    )
    generator = generator or RuleBasedGenerator(["noise", "stain"], strength=(0.9, 1.0))
    return SyntheticDataModule(base, generator, root=tmp_path / "kept", splits=["val"], **options)


@pytest.mark.parametrize(("white_point", "shift"), [("find", 0), (4095, 0), (16383, 2)])
def test_a_model_is_shown_the_images_by_the_white_when_one_is_given(tmp_path, white_point, shift) -> None:
    expected = {f"{n:03d}.png": levels >> shift for n, levels in enumerate(write_deep(tmp_path / "good", 10))}
    datamodule = wrap(tmp_path, white_point=white_point)
    datamodule.setup()
    assert len(datamodule.train_data) == 8
    for row in range(8):
        item = datamodule.train_data[row]
        np.testing.assert_array_equal((item.image[1] * 255).round(), expected[Path(item.image_path).name])
    for file in datamodule.val_data.samples.source_path:
        np.testing.assert_array_equal((read_image(file, as_tensor=True)[0] * 255).round(), expected[Path(file).name])
    white = 4095 if white_point == "find" else white_point
    assert datamodule.state_dict() == {"white_point": {"integer": white, "floating": None} | _floats(white_point)}


def _floats(white_point: int | str) -> dict[str, float]:
    return {} if white_point == "find" else {"floating": float(white_point)}


@pytest.mark.parametrize(("text", "value"), [("find", "find"), ("4095", 4095.0), ("1.0", 1.0), ("null", None)])
def test_yaml_takes_a_number_or_find_when_it_names_white(tmp_path, text, value) -> None:
    config = f"""
class_path: anomalib_synth.data.SyntheticDataModule
init_args:
  base: {{class_path: anomalib.data.Folder, init_args: {{name: part, normal_dir: {tmp_path}}}}}
  generator: {{class_path: anomalib_synth.generators.RuleBasedGenerator}}
  white_point: {text}
"""
    assert build_object(AnomalibDataModule, yaml.safe_load(config), "`data`").white_point == value


def test_defects_stay_the_same_when_the_copies_are_there_already(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    pairs = []
    for _ in range(2):
        datamodule = wrap(tmp_path, white_point="find")
        datamodule.setup()
        pairs.append([datamodule.val_data[row].image for row in range(2)])
    assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))


def test_the_refusal_names_the_argument_when_no_white_is_given(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    with pytest.raises(ValueError, match=r"more than 8 bits .*convert.* 4095 \(12 bits\)\. `white_point: 4095`"):
        wrap(tmp_path).setup()


def test_the_callback_takes_what_its_refusal_of_a_plain_folder_names(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    callback = SynthesisCallback(generator=None)
    plain = wrap(tmp_path).base
    plain.setup()
    with pytest.raises(ValueError, match=r"'.*000\.png': more than 8 bits") as refused:
        callback.on_fit_start(SimpleNamespace(datamodule=plain), None)
    setting = re.search(r"`white_point: (\d+)` of anomalib_synth\.data\.SyntheticDataModule", str(refused.value))
    wrapped = wrap(tmp_path, white_point=int(setting[1]))
    wrapped.setup()
    callback.on_fit_start(SimpleNamespace(datamodule=wrapped), None)
    convert(tmp_path / "good", out=tmp_path / "copies" / "good")
    copies = wrap(tmp_path / "copies").base
    copies.setup()
    callback.on_fit_start(SimpleNamespace(datamodule=copies), None)


@pytest.mark.parametrize("value", ["auto", 0, 70000, True, "4095"])
def test_a_white_point_is_refused_when_it_is_none(tmp_path, value) -> None:
    with pytest.raises(ValueError, match="`white_point` must be"):
        wrap(tmp_path, white_point=value)


def test_a_damaged_file_is_named_when_the_others_are_converted(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    path = tmp_path / "good" / "003.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"1 of 6 are not .*003\.png"):
        wrap(tmp_path, white_point="find").setup()


def test_real_defects_of_another_white_are_refused_unless_theirs_is_given(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    defects = write_defect(tmp_path / "real", bits=10)
    with pytest.raises(ValueError, match=r"RealDefectGenerator has 1023.*`white_point: 4095`"):
        wrap(tmp_path, RealDefectGenerator(defects), white_point="find").setup()
    generator = RealDefectGenerator(defects, white_point=4095)
    wrap(tmp_path, generator, white_point="find").setup()
    assert generator.config["init_args"]["white_point"] == 4095
    assert "white_point" not in RealDefectGenerator(defects).config["init_args"]
    (donor,) = next(iter(generator._folder.donors.values()))[0]
    assert donor.pixels.max() <= 255 >> 2


def test_a_store_of_another_white_is_refused(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    settings = {"normals": {"white_point": {"integer": 1023, "floating": None}}}
    store = SampleStore.create(tmp_path / "store", settings)
    with store.writing():
        store.append(make_record(store, 0))
    with pytest.raises(ValueError, match=r"StoredGenerator has 1023.*make a store again with that bit depth"):
        wrap(tmp_path, StoredGenerator(tmp_path / "store"), white_point="find").setup()


def test_a_run_does_not_go_on_with_another_white(tmp_path) -> None:
    write_deep(tmp_path / "good", 6)
    datamodule = wrap(tmp_path, white_point="find")
    datamodule.setup()
    datamodule.load_state_dict(datamodule.state_dict())
    with pytest.raises(ValueError, match=r"with the white point of the run, 4095, but the checkpoint has 1023"):
        datamodule.load_state_dict({"white_point": {"integer": 1023, "floating": None}})


def test_a_real_defect_is_found_in_the_test_set_when_that_is_converted(tmp_path) -> None:
    write_deep(tmp_path / "good", 8)
    defects = write_defect(tmp_path / "real")
    base = Folder(
        name="part", root=tmp_path, normal_dir="good", abnormal_dir="real/test/cut", num_workers=0,
        test_split_mode="from_dir", val_split_mode="none",
    )  # fmt: skip
    generator = RealDefectGenerator(defects)
    datamodule = SyntheticDataModule(base, generator, root=tmp_path / "kept", splits=["val"], white_point="find")
    with pytest.raises(ValueError, match=r"`generator` must not hold images that are in the run's test set, got 1"):
        datamodule.setup()
