"""Real defects are pasted as they look, where they may be, and by the contract of all generators."""

from __future__ import annotations

import functools
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from PIL import Image

from anomalib_synth.generators import (
    AnomalyGenerator,
    MixtureGenerator,
    RealDefectGenerator,
    RuleBasedGenerator,
    SampleChecks,
    StoredGenerator,
    build_generator,
)
from tests import contract

NORMALS = contract.render_normals(6, 3, 64, 72, seed=1)
FREE = SampleChecks(min_visibility=0, min_agreement=0, min_foreground=0, area=(0, 1))
AS_IT_WAS = {"strength": (1.0, 1.0), "scale": (1.0, 1.0), "turn": False, "mirror": False, "checks": FREE}
BOX = (slice(40, 56), slice(20, 50))  # of the dent, in an image of 96 x 96


def save(file: Path, levels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(file)


def to_levels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def render_dent() -> torch.Tensor:
    """What a dent adds to a surface, (16, 30): dark on one side, bright on the other, nothing at its rim."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 30), indexing="ij")
    return 0.5 * (x + 0.4 * y + 0.2 * (x * y)) * ((1 - x * x) * (1 - y * y)).clamp(0, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category in MVTec layout: two dents on darker surfaces, and a scratch with a speck, coloured."""
    part = tmp_path_factory.mktemp("real") / "part"
    surfaces = contract.render_normals(3, 3, 96, 96, seed=5)
    save(part / "test" / "good" / "000.png", to_levels(surfaces[0]))
    for index in range(2):
        image, mask = surfaces[index] - 0.2, np.zeros((96, 96), np.uint8)
        image[:, *BOX] += render_dent()
        mask[BOX] = 255
        save(part / "test" / "dent" / f"{index:03d}.png", to_levels(image.clamp(0, 1)))
        save(part / "ground_truth" / "dent" / f"{index:03d}_mask.png", mask)
    image, mask = surfaces[2].clone(), np.zeros((96, 96), np.uint8)
    mask[10:70, 60:63] = 1
    mask[90, 5:7] = 1
    image[0, mask > 0], image[1:, mask > 0] = 0.95, 0.1
    save(part / "test" / "red_scratch" / "000.png", to_levels(image))
    save(part / "ground_truth" / "red_scratch" / "000.png", mask)
    return part


@pytest.fixture(params=["poisson", "mixed", "feather", "mixture"])
def make(request, root):
    if request.param == "mixture":
        return lambda: MixtureGenerator([RealDefectGenerator(root / "test"), RuleBasedGenerator(["scratch"])])
    return functools.partial(RealDefectGenerator, root / "test", blend=request.param)


def test_most_draws_are_accepted(make) -> None:
    sample = make().prepare(NORMALS)(contract.render_normals(16, 3, 96, 96), seeds=range(16))
    assert sample.accepted.float().mean() >= 0.75, sample.reason


def test_replay(make) -> None:
    contract.check_replay(make, contract.render_normals(5, 3, 65, 70), [3, 1, 4, 1, 5], NORMALS)
    contract.check_replay(make, contract.render_normals(4, 3, 48, 56), [9, 2, 6, 5])


def test_replay_when_the_part_is_an_object_and_a_mask_is_given(make) -> None:
    images = torch.full((4, 3, 64, 64), 0.9)
    images[..., 12:52, 12:52] = contract.render_normals(4, 3, 40, 40)
    contract.check_replay(make, images, [1, 2, 3, 4], images)
    region = torch.zeros(4, 1, 64, 64)
    region[..., 20:40, 20:40] = 1
    whole = make().prepare(images)(images, seeds=[1, 2, 3, 4], masks=region)
    for row in range(4):
        single = make().prepare(images)(images[row : row + 1], seeds=[row + 1], masks=region[row : row + 1])
        contract.assert_row_equal(contract.pick(whole, row), contract.pick(single, 0))


def test_purity(make) -> None:
    contract.check_purity(make, contract.render_normals(4, 3, 40, 40), [1, 2, 3, 4])


def test_a_used_generator_can_be_sent_to_a_worker(make) -> None:
    images = contract.render_normals(4, 3, 40, 40)
    used = make()
    sample = used(images, seeds=[1, 2, 3, 4])
    contract.assert_same(pickle.loads(pickle.dumps(used))(images, seeds=[1, 2, 3, 4]), sample)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    channels=st.sampled_from([1, 3]),
    count=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    prepared=st.booleans(),
)
def test_invariants_whatever_the_input(make, size, channels, count, seed, dtype, prepared) -> None:
    images = contract.render_normals(count, channels, *size, seed=seed % 1000).to(dtype)
    normals = contract.render_normals(3, channels, *size, seed=7) if prepared else None
    contract.check_all(make, images, [seed] * count, prepare_with=normals)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_invariants_when_the_image_is_constant(make, level) -> None:
    images = torch.full((3, 3, 40, 40), level)
    contract.check_all(make, images, [1, 2, 3], prepare_with=images)
    assert make()(images[:0], seeds=[]).image.shape == (0, 3, 40, 40)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_invariants_on_cuda(make) -> None:
    images = contract.render_normals(6, 3, 96, 96).cuda()
    contract.check_all(make, images, [1, 2, 3, 4, 5, 6], prepare_with=NORMALS)
    contract.check_replay(make, images, [1, 2, 3, 4, 5, 6], NORMALS)


def change_at(sample, row: int, like: torch.Tensor) -> torch.Tensor:
    """The change of a row where its patch was pasted, at the size of ``like``, averaged over the channels."""
    params = sample.provenance[row].params
    h, w = like.shape
    top, left = round(params["centre_y"] - h / 2), round(params["centre_x"] - w / 2)
    change = (sample.image[row] - sample.source[row]).mean(0)
    return change[top : top + h, left : left + w]


@pytest.mark.parametrize(("blend", "least"), [("poisson", 0.97), ("mixed", 0.85), ("feather", 0.95)])
@pytest.mark.parametrize("turn", [False, True])
def test_a_pasted_defect_keeps_its_look(tmp_path, blend, least, turn) -> None:
    grain = 0.02 * torch.rand(13, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    smooth = torch.linspace(0.5, 0.7, 96).view(1, 1, 1, -1) + grain[:12]
    image, mask = 0.3 + grain[12], np.zeros((96, 96), np.uint8)
    image[:, *BOX] += render_dent()
    mask[BOX] = 255
    save(tmp_path / "d" / "0.png", to_levels(image.clamp(0, 1)))
    save(tmp_path / "m" / "0.png", mask)
    arguments = {**AS_IT_WAS, "turn": turn, "mirror": turn}
    generator = RealDefectGenerator(tmp_path / "d", tmp_path / "m", blend=blend, **arguments)
    sample = generator(smooth, seeds=range(12))
    dent = render_dent()
    for row in range(12):
        params = sample.provenance[row].params
        expected = torch.rot90(dent.flip(1) if params["mirrored"] else dent, int(params["turns"]))
        both = torch.stack([change_at(sample, row, expected).flatten(), expected.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > least
        assert float(both[0].std() / both[1].std()) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("blend", ["poisson", "mixed", "feather"])
def test_no_change_of_tone_is_left_around_a_defect(tmp_path, blend) -> None:
    image, mask = np.full((64, 64, 3), 60, np.uint8), np.zeros((64, 64), np.uint8)
    image[28:36, 28:36] = 20
    mask[20:44, 20:44] = 255  # a generous mask: most of it is surface
    save(tmp_path / "d" / "0.png", image)
    save(tmp_path / "m" / "0.png", mask)
    generator = RealDefectGenerator(tmp_path / "d", tmp_path / "m", blend=blend, **AS_IT_WAS)
    bright = torch.full((1, 3, 64, 64), 0.8)
    change = (generator(bright, seeds=[3]).image - bright)[0, 0]
    assert float(change.min()) == pytest.approx(-40 / 255, abs=0.01)
    assert int((change.abs() > 0.02).sum()) == 64
    assert bool((change < 0.02).all())


def test_strength_scales_the_change(root) -> None:
    images = contract.render_normals(4, 3, 96, 96)
    changes = []
    for strength in (0.25, 0.5, 1.0):
        generator = RealDefectGenerator(root / "test" / "dent", **{**AS_IT_WAS, "strength": (strength, strength)})
        sample = generator(images, seeds=range(4))
        changes.append(float((sample.image - images).abs().sum()))
        assert (
            sample.caption[0]
            == f"a real dent, {'low' if strength < 0.4 else 'medium' if strength < 1 else 'high'} contrast"
        )
    assert changes[0] < changes[1] < changes[2]


def test_family_and_caption_are_the_folders_name(root) -> None:
    sample = RealDefectGenerator(root / "test")(contract.render_normals(24, 3, 96, 96), seeds=range(24))
    assert {record.family for record in sample.provenance} == {"dent", "red_scratch"}
    assert {caption.split(",")[0] for caption in sample.caption} == {"a real dent", "a real red scratch"}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_image_gets_a_grey_defect(root, channels) -> None:
    grey = contract.render_normals(8, 1, 96, 96).expand(8, channels, 96, 96).contiguous()
    sample = RealDefectGenerator(root / "test" / "red_scratch")(grey, seeds=range(8))
    assert bool(sample.accepted.any())
    assert bool((sample.image == sample.image[:, :1]).all())
    assert {caption.split(",")[0] for caption in sample.caption if caption} == {"a real scratch"}


def test_a_defect_keeps_its_share_of_another_size(root) -> None:
    for size in ((96, 288), (288, 96)):
        sample = RealDefectGenerator(root / "test" / "dent", **AS_IT_WAS)(torch.full((1, 3, *size), 0.5), seeds=[0])
        rows, columns = sample.mask[0, 0].any(1).sum(), sample.mask[0, 0].any(0).sum()
        assert int(rows) == pytest.approx(16 / 96 * size[0], abs=6)
        assert int(columns) == pytest.approx(30 / 96 * size[1], abs=6)


def test_specks_are_rare(root) -> None:
    generator = RealDefectGenerator(root / "test" / "red_scratch")
    drawn = [generator.make_params(seed)[1]["region"] for seed in range(400)]
    assert 0.02 < sum(drawn) / 400 < 0.2


def test_components_that_are_close_are_one_defect(tmp_path) -> None:
    image, mask = np.full((160, 160, 3), 90, np.uint8), np.zeros((160, 160), np.uint8)
    mask[20:30, 20:30] = mask[20:30, 33:40] = mask[100:110, 100:110] = 255
    save(tmp_path / "d" / "0.png", image)
    save(tmp_path / "m" / "0_mask.png", mask)
    generator = RealDefectGenerator(tmp_path / "d", tmp_path / "m")
    areas = {int(generator.make_params(seed)[0].mask.sum()) for seed in range(32)}
    assert areas == {170, 100}


def write_cut_off(folder: Path) -> RealDefectGenerator:
    """A defect that the left border of its image cuts off."""
    image, mask = np.full((80, 80, 3), 150, np.uint8), np.zeros((80, 80), np.uint8)
    image[30:44, :12], mask[30:44, :12] = 30, 255
    save(folder / "d" / "0.png", image)
    save(folder / "m" / "0.png", mask)
    return RealDefectGenerator(folder / "d", folder / "m", **{**AS_IT_WAS, "turn": True, "mirror": True})


def test_a_defect_that_was_cut_off_goes_to_the_border(tmp_path) -> None:
    sample = write_cut_off(tmp_path)(torch.full((16, 3, 80, 80), 0.6), seeds=range(16))
    sides = set()
    for mask in sample.mask[:, 0]:
        ends = {"top": mask[0], "bottom": mask[-1], "left": mask[:, 0], "right": mask[:, -1]}
        reached = {name for name, line in ends.items() if bool(line.any())}
        assert len(reached) == 1
        sides |= reached
    assert sides == {"top", "bottom", "left", "right"}


def test_a_defect_that_was_cut_off_goes_anywhere_when_the_part_reaches_no_border(tmp_path) -> None:
    region = torch.zeros(4, 1, 80, 80)
    region[..., 25:55, 25:55] = 1
    sample = write_cut_off(tmp_path)(torch.full((4, 3, 80, 80), 0.6), seeds=range(4), masks=region)
    centres = [(record.params["centre_y"], record.params["centre_x"]) for record in sample.provenance]
    assert all(20 <= value <= 60 for centre in centres for value in centre)


def test_a_defect_that_crosses_its_image_crosses_the_other(tmp_path) -> None:
    image, mask = np.full((64, 64, 3), 150, np.uint8), np.zeros((64, 64), np.uint8)
    image[:, 30:34], mask[:, 30:34] = 40, 255
    save(tmp_path / "d" / "0.png", image)
    save(tmp_path / "m" / "0.png", mask)
    generator = RealDefectGenerator(tmp_path / "d", tmp_path / "m", **{**AS_IT_WAS, "scale": (0.5, 0.5)})
    mask = generator(torch.full((1, 3, 64, 96), 0.6), seeds=[0]).mask[0, 0]
    assert bool(mask.any(1).all())


def test_every_file_is_in_the_digest(root, tmp_path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "part"))
    before = RealDefectGenerator(copy / "test")
    names = {file.relative_to(copy).as_posix() for file in before.files}
    assert names == {
        *(f"test/dent/00{i}.png" for i in (0, 1)),
        *(f"ground_truth/dent/00{i}_mask.png" for i in (0, 1)),
        "test/red_scratch/000.png",
        "ground_truth/red_scratch/000.png",
    }
    assert before.files_digest == RealDefectGenerator(root / "test").files_digest
    for folder in ("test", "ground_truth"):
        (copy / folder / "dent").rename(copy / folder / "bump")
    renamed = RealDefectGenerator(copy / "test").files_digest
    mask = np.zeros((96, 96), np.uint8)
    mask[40:50, 40:50] = 255
    save(copy / "ground_truth" / "bump" / "001_mask.png", mask)
    assert len({before.files_digest, renamed, RealDefectGenerator(copy / "test").files_digest}) == 3


@pytest.mark.parametrize("masks", ["same", "inside", "given"])
def test_layouts(tmp_path, masks) -> None:
    levels, mask = np.full((40, 40, 3), 90, np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 255
    folder = {"same": tmp_path / "nick", "inside": tmp_path / "nick" / "masks", "given": tmp_path / "m"}[masks]
    save(tmp_path / "nick" / "a.png", levels)
    save(folder / "a_mask.png", mask)
    generator = RealDefectGenerator(tmp_path / "nick", folder)
    assert generator.files == [tmp_path / "nick" / "a.png", folder / "a_mask.png"]
    assert generator.make_params(0)[0].family == "nick"


def test_images_of_16_bits_are_scaled(tmp_path) -> None:
    levels = np.full((40, 40), 128 << 8, np.uint16)
    mask = np.zeros((40, 40), np.uint16)
    mask[10:20, 10:20] = 65535
    save(tmp_path / "d" / "a.png", levels)
    save(tmp_path / "m" / "a.png", mask)
    donor, _ = RealDefectGenerator(tmp_path / "d", tmp_path / "m").make_params(0)
    assert donor.pixels.unique().tolist() == [128]
    assert int(donor.mask.sum()) == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blend": "paste"}, "`blend` must be one of poisson, mixed, feather, got 'paste'"),
        ({"strength": (0.0, 1.0)}, r"`strength` must satisfy 0 < min <= max <= 1, got \(0.0, 1"),
        ({"scale": (1.5, 0.5)}, "`scale` must satisfy 0 < min <= max <= 4"),
        ({"scale": (1.0, 9.0)}, "`scale` must satisfy"),
        ({"max_attempts": 0}, "`max_attempts` must be >= 1"),
    ],
)
def test_bad_arguments_are_errors(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        RealDefectGenerator("nowhere", **arguments)


def spoil(part: Path, name: str) -> tuple[Path, Path | None]:
    """Damage a copy of the folder; return the two arguments."""
    mask = part / "ground_truth" / "dent" / "001_mask.png"
    if name == "no folder":
        return part / "tset", None
    if name == "no image":
        shutil.rmtree(part / "test")
        save(part / "test" / "good" / "0.png", np.zeros((9, 9), np.uint8))
    elif name == "no ground truth":
        (part / "ground_truth").rename(part / "labels")
    elif name == "no mask folder":
        return part / "test", part / "labels"
    elif name == "no mask":
        mask.unlink()
    elif name == "empty mask":
        save(mask, np.zeros((96, 96), np.uint8))
    elif name == "other size":
        save(mask, np.eye(48, 96, dtype=np.uint8) * 255)
    elif name == "unreadable image":
        (part / "test" / "dent" / "001.png").write_bytes(b"no image")
    else:
        mask.write_bytes(mask.read_bytes()[:60])
    return part / "test", None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no folder", "`defects` must be a folder with images of real defects, got '.*tset'. Give"),
        ("no image", "`defects` '.*test' holds no image of a defect .* Put some there"),
        ("no ground truth", "`masks` must be given: there is no folder `ground_truth` beside `defects`"),
        ("no mask folder", "`masks` must be a folder with masks of the defects, got '.*labels'"),
        ("no mask", r"`masks` must hold a mask of every image.*001_mask.png nor 001.png for .*001.png'. Add it"),
        ("empty mask", "`masks` needs a usable mask, '.*001_mask.png' is none: it is zero everywhere; paint"),
        ("other size", "`masks` must have the sizes of their images, but .*96 x 48 pixels and .* is 96 x 96. Export"),
        ("unreadable image", "`defects` holds an unreadable image, '.*001.png': .* Replace it"),
        ("unreadable mask", "`masks` needs a usable mask, '.*001_mask.png' is none: damaged"),
    ],
)
def test_bad_folders_are_errors_on_first_use(root, tmp_path, name, message) -> None:
    arguments = spoil(Path(shutil.copytree(root, tmp_path / "part")), name)
    generator = RealDefectGenerator(*arguments)
    assert build_generator(generator.config).config == generator.config
    with pytest.raises(ValueError, match=message):
        generator(contract.render_normals(1, 3, 64, 64), seeds=[0])


def test_a_config_file_makes_the_same_generator(root, tmp_path) -> None:
    original = RealDefectGenerator(root / "test", blend="mixed", scale=(0.5, 1.5), turn=False, checks=FREE, seed=3)
    file = tmp_path / "generator.yaml"
    parser = ArgumentParser()
    parser.add_argument("--generator", type=AnomalyGenerator, enable_path=True)
    config = json.loads(json.dumps(original.config))
    config["init_args"]["checks"] = {
        "class_path": "anomalib_synth.generators.SampleChecks",
        "init_args": config["init_args"]["checks"],
    }
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    parsed = parser.instantiate_classes(parser.parse_args([f"--generator={file}"])).generator
    images = contract.render_normals(4, 3, 64, 64)
    for twin in (parsed, build_generator(json.loads(json.dumps(original.config)))):
        assert twin.config == original.config
        contract.assert_same(twin(images), RealDefectGenerator(**original.init_args | {"checks": FREE})(images))


def test_the_command_generates_with_it(root, parts_root, tmp_path) -> None:
    from anomalib_synth.cli import main
    from anomalib_synth.store import SampleStore

    file = tmp_path / "generator.yaml"
    file.write_text(
        f"class_path: anomalib_synth.generators.RealDefectGenerator\ninit_args: {{defects: {root / 'test'}}}\n",
        encoding="utf-8",
    )
    normals = parts_root / "train" / "good"
    main(["generate", f"--normals={normals}", f"--out={tmp_path / 's'}", "--num_samples=8", f"--generator={file}"])
    records = SampleStore.open(tmp_path / "s").records
    assert {record.family for record in records} == {"dent", "red_scratch"}
    assert len({record.files_digest for record in records}) == 1


def test_a_store_says_which_defects_it_shows_when_they_are_gone(root, parts_root, tmp_path) -> None:
    from anomalib_synth.cli import main
    from anomalib_synth.data.held_out import check_not_held_out

    defects, copy = tmp_path / "test", tmp_path / "elsewhere.png"
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    shown = next((defects / "dent").glob("*.png"))
    shutil.copy(shown, copy)
    for name, more in (("plain", []), ("mixed", ["RuleBasedGenerator"])):
        real = {"class_path": "RealDefectGenerator", "init_args": {"defects": str(defects)}}
        mixture = {"class_path": "MixtureGenerator", "init_args": {"generators": [real, *more]}}
        config = tmp_path / f"{name}.yaml"
        config.write_text(json.dumps(mixture if more else real), encoding="utf-8")
        out, normals = f"--out={tmp_path / name}", f"--normals={parts_root / 'train' / 'good'}"
        main(["generate", normals, out, "--num_samples=2", f"--generator={config}", "--image_size=64"])
    shutil.rmtree(defects)
    run = SimpleNamespace(
        test_data=SimpleNamespace(samples=pd.DataFrame({"image_path": [str(copy)], "label_index": [1]}))
    )
    for name in ("plain", "mixed"):
        generator = StoredGenerator(tmp_path / name)
        with pytest.raises(ValueError, match=rf"`generator` must not hold.*{shown.name}.*elsewhere\.png"):
            check_not_held_out(run, generator.defect_digests, "generator")


def test_a_datamodule_keeps_samples_of_it(parts_root, tmp_path) -> None:
    from anomalib.data import Folder

    from anomalib_synth.data import SyntheticDataModule

    base = Folder(name="parts", root=parts_root, normal_dir="train/good", num_workers=0, train_batch_size=4)
    datamodule = SyntheticDataModule(
        base, RealDefectGenerator(parts_root / "test"), splits=["train", "val"], root=tmp_path
    )
    datamodule.setup()
    item = next(item for item in datamodule.val_data if item.gt_label)
    assert bool(item.gt_mask.any())
    batch = next(iter(datamodule.train_dataloader()))
    assert torch.equal(batch.gt_label.bool(), batch.gt_mask.flatten(1).any(1))


def write_annotated(folder: Path, kind: str) -> RealDefectGenerator:
    """An image whose defect, BOX, is marked by an annotation of a kind."""
    top, bottom, left, right = BOX[0].start, BOX[0].stop, BOX[1].start, BOX[1].stop
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    flat = [value for corner in corners for value in corner]
    image = contract.render_normals(1, 3, 96, 96, seed=5)[0]
    save(folder / "dent" / "a.png", to_levels(image))
    shapes = {
        "labelme": {"shape_type": "polygon", "points": corners},
        "box": {"shape_type": "rectangle", "points": [corners[0], corners[2]]},
        "scribble": {"shape_type": "line", "points": corners[:2]},
        "point": {"shape_type": "point", "points": corners[:1]},
    }
    if kind == "mask":
        mask = np.zeros((96, 96), np.uint8)
        mask[BOX] = 255
        save(folder / "dent" / "a_mask.png", mask)
    elif kind == "coco":
        content = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [flat]}],
            "categories": [{"id": 1, "name": "dent"}],
        }
        (folder / "dent" / "annotations.json").write_text(json.dumps(content))
    elif kind == "cvat":
        points = ";".join(f"{x},{y}" for x, y in corners)
        shape = f'<image name="a.png"><polygon label="dent" points="{points}"/></image>'
        (folder / "dent" / "annotations.xml").write_text(f"<annotations>{shape}</annotations>")
    elif kind == "yolo":
        (folder / "dent" / "labels").mkdir()
        shares = " ".join(str(value / 96) for value in flat)
        (folder / "dent" / "labels" / "a.txt").write_text(f"0 {shares}\n")
    elif kind in shapes:
        shape = {"label": "dent", **shapes[kind]}
        (folder / "dent" / "a.json").write_text(json.dumps({"shapes": [shape]}))
    return RealDefectGenerator(folder / "dent")


@pytest.mark.parametrize("kind", ["coco", "cvat", "yolo", "labelme"])
def test_samples_are_those_of_a_mask_when_an_annotation_outlines_the_pixels(tmp_path, kind) -> None:
    images = contract.render_normals(3, 3, 64, 64)
    masked = write_annotated(tmp_path / "mask", "mask")(images, seeds=[1, 2, 3])
    sample = write_annotated(tmp_path / kind, kind)(images, seeds=[1, 2, 3])
    assert torch.equal(sample.image, masked.image)
    assert bool(sample.accepted.any())
    assert sample.caption == masked.caption


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("box", "'.*a.png' is marked by a box in '.*a.json', which does not say where the defect ends"),
        ("scribble", "'.*a.png' is marked by a line in '.*a.json'"),
        ("point", "'.*a.png' is marked by a click in '.*a.json'"),
        ("none", "`masks` must be given: .* nor any mark of '.*a.png'"),
    ],
)
def test_the_remedy_is_named_when_a_defect_is_not_outlined(tmp_path, kind, message) -> None:
    generator = write_annotated(tmp_path, kind)
    remedy = ".* `anomalib-synth review --images FOLDER`; with `--detector DIR` the page proposes"
    with pytest.raises(ValueError, match=message + remedy):
        generator(contract.render_normals(1, 3, 64, 64), seeds=[0])


def test_each_type_is_cut_out_on_its_own_when_an_image_has_two(tmp_path) -> None:
    save(tmp_path / "parts" / "a.png", np.full((80, 80, 3), 90, np.uint8))
    shapes = [
        {"label": label, "points": [[x, 10], [x + side, 10], [x + side, 10 + side], [x, 10 + side]]}
        for label, x, side in (("dent", 10, 12), ("oil stain", 50, 20))
    ]
    (tmp_path / "parts" / "a.json").write_text(json.dumps({"shapes": shapes}))
    generator = RealDefectGenerator(tmp_path / "parts")
    donors = [generator.make_params(seed)[0] for seed in range(20)]
    assert {(donor.family, int(donor.mask.sum())) for donor in donors} == {("dent", 144), ("oil stain", 400)}


def test_a_file_is_in_the_digest_once_when_it_is_of_many_images(tmp_path) -> None:
    rows = []
    for number in range(3):
        save(tmp_path / "parts" / f"{number}.png", np.full((80, 80, 3), 90, np.uint8))
        rows.append({"image_id": number, "segmentation": [[10, 10, 30, 10, 30, 30]]})
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(3)]
    file = tmp_path / "parts" / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": rows}))
    generator = RealDefectGenerator(tmp_path / "parts")
    assert generator.files.count(file) == 1
    assert len(generator.files) == 4
    before = generator.files_digest
    rows[2]["segmentation"] = [[10, 10, 40, 10, 40, 30]]
    file.write_text(json.dumps({"images": images, "annotations": rows}))
    assert RealDefectGenerator(tmp_path / "parts", file).files_digest != before
