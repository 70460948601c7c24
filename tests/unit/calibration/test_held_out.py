"""Which normals may be used, and how many it takes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.calibration.held_out import (
    check_count,
    check_generator_not_learned,
    check_not_trained_on,
    list_normals,
    list_readable,
    list_real,
)
from anomalib_synth.generators import MixtureGenerator, RealDefectGenerator, RuleBasedGenerator
from anomalib_synth.images import WhitePoint, digest_images
from tests.conftest import save_images
from tests.contract import render_normals
from tests.unit.report.defect_images import make_parts


@pytest.fixture
def folder(tmp_path):
    """Six normals in two folders."""
    save_images(tmp_path / "good", render_normals(6, 3, 16, 16, seed=1))
    return tmp_path / "good"


def test_copies_are_left_out_when_a_normal_is_there_twice(folder) -> None:
    (folder / "more").mkdir()
    shutil.copy(folder / "000.png", folder / "more" / "copy.png")
    normals, copies = list_normals(folder, 100)
    assert (len(normals), copies) == (6, 1)
    assert len({normal.content for normal in normals}) == 6


def test_no_more_than_the_limit_is_used(folder) -> None:
    assert len(list_normals(folder, 4)[0]) == 4


@pytest.mark.parametrize("make", [True, False])
def test_folder_without_images_is_refused(tmp_path, make) -> None:
    if make:
        (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="`normals` must be a folder with images"):
        list_readable("normals", tmp_path / "empty")


@pytest.mark.parametrize(
    ("count", "rate", "said"),
    [
        (9, 0.5, "at least 10 different images"),
        (37, 0.05, "takes at least 38 different normals"),
        (40, 0.01, r"takes at least 198 .* a rate of at least 0\.048\."),
    ],
)
def test_too_few_normals_are_refused_when_the_rate_takes_more(count, rate, said) -> None:
    with pytest.raises(ValueError, match=said):
        check_count(count, rate)


@pytest.mark.parametrize(("count", "rate"), [(10, 0.2), (38, 0.05), (39, 0.05), (198, 0.01), (40, 0.048)])
def test_enough_normals_pass(count, rate) -> None:
    check_count(count, rate)


def test_copies_of_8_bits_are_refused_when_the_training_images_have_more(folder, tmp_path) -> None:
    normals, _ = list_normals(folder, 100)
    (tmp_path / "deep").mkdir()
    for path in sorted(folder.glob("*.png"))[:2]:
        grey = np.asarray(Image.open(path).convert("RGB"))[..., 0].astype(np.uint16)
        Image.fromarray(grey << 4).save(tmp_path / "deep" / path.name)
        Image.fromarray(np.repeat(grey.astype(np.uint8)[..., None], 3, 2)).save(path)
    normals, _ = list_normals(folder, 100)
    with pytest.raises(ValueError, match=r"must not hold training images, got 2 of 6"):
        check_not_trained_on(normals, tmp_path / "deep", None, WhitePoint.of_bit_depth(12))
    check_not_trained_on(normals, tmp_path / "deep", None, WhitePoint.of_bit_depth(14))


def test_training_images_are_refused_when_the_user_names_their_folder(folder, tmp_path) -> None:
    normals, _ = list_normals(folder, 100)
    (tmp_path / "train").mkdir()
    shutil.copy(folder / "003.png", tmp_path / "train" / "renamed.png")
    with pytest.raises(ValueError, match=r"must not hold training images, got 1 of 6 .*003\.png"):
        check_not_trained_on(normals, tmp_path / "train", None)


def test_what_lies_in_the_training_folder_and_is_not_read_is_named(folder, tmp_path, capsys) -> None:
    normals, _ = list_normals(folder, 100)
    save_images(tmp_path / "train", render_normals(1, 3, 16, 16, seed=2))
    (tmp_path / "train" / "old.gif").write_bytes(b"x")
    check_not_trained_on(normals, tmp_path / "train", None)
    assert "Left out old.gif of `train_normals`: the format .gif is not read" in capsys.readouterr().out
    (tmp_path / "train" / "gone.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"gone\.png' cannot be read .* take it away"):
        check_not_trained_on(normals, tmp_path / "train", None)


def test_training_images_are_refused_when_the_configuration_names_them(folder, tmp_path) -> None:
    normals, _ = list_normals(folder, 100)
    config = tmp_path / "config.yaml"
    data = "{name: p, root: %s, normal_dir: %s, val_split_mode: from_train, test_split_mode: none, seed: 0}"
    config.write_text(f"data:\n  class_path: anomalib.data.Folder\n  init_args: {data % (tmp_path, 'good')}\n")
    with pytest.raises(ValueError, match="must not hold training images"):
        check_not_trained_on(normals, None, config)
    save_images(tmp_path / "other", render_normals(6, 3, 16, 16, seed=2))
    check_not_trained_on(list_normals(tmp_path / "other", 9)[0], None, config)


@pytest.mark.parametrize(
    "stray",
    [
        "annotations.json",
        "lines/labels/z.txt",
        "lines/real/dent/z_mask.png",
        "lines/real/dent/a_mask.png",  # cannot be read
        "masks/z.png",
    ],
)
def test_real_defects_are_found_when_annotations_about_others_lie_around(tmp_path, stray) -> None:
    real = make_parts(tmp_path / "lines" / "real", ("dent/a.png", "dent/b.png", "good/c.png"))
    (real / ".no_defect.json").write_text('{"no_defect": ["dent/b.png"]}')
    (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / stray).write_text("{ 0 0.5 0.5 0.1 0.1")
    assert list_real(real, {}) == [real / "dent" / "a.png"]


def test_real_defects_are_refused_when_none_is_left(tmp_path) -> None:
    make_parts(tmp_path, ("good/a.png",))
    with pytest.raises(ValueError, match=r"`defects` '.*' holds no image of a defect"):
        list_real(tmp_path, {})


@pytest.mark.parametrize("wrap", [lambda generator: generator, lambda generator: MixtureGenerator([generator])])
def test_defects_that_were_learned_are_refused_when_the_generator_draws_them(folder, wrap) -> None:
    """Pasted on held-out images they would be found more often than new ones."""
    for name in ("000", "001"):
        Image.fromarray(np.pad(np.full((6, 6), 255, np.uint8), 5)).save(folder / f"{name}_mask.png")
    generator = wrap(RealDefectGenerator([folder / "000.png", folder / "001.png"]))
    learned = {"anomalib_synth_learned": digest_images([folder / "001.png"])}
    with pytest.raises(ValueError, match=r"`generator` must not draw real defects .* learned, got 1: '.*001\.png'"):
        check_generator_not_learned(generator, learned)
    check_generator_not_learned(generator, {"anomalib_synth_learned": digest_images([folder / "002.png"])})
    check_generator_not_learned(RuleBasedGenerator(), learned)
