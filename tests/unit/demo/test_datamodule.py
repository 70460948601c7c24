"""DemoParts: layout, determinism, honest masks, errors, and that nothing trivial separates the classes."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_synth.demo import DemoParts
from anomalib_synth.demo.defects import AREA_RANGE, DEFECTS, VISIBLE_CHANGE, change_mask, defective
from anomalib_synth.demo.parts import PART_KINDS, make_part, photograph, render
from anomalib_synth.demo.scene import draw_views
from anomalib_synth.demo.writer import MARKER_NAME, RenderPlan

SMALL = {"image_size": 96, "num_train": 5, "num_test_good": 3, "num_test_defect": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    DemoParts(root=folder, category="all", **SMALL).prepare_data()
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_constructor_writes_nothing(tmp_path: Path) -> None:
    assert isinstance(DemoParts(root=tmp_path / "new"), AnomalibDataModule)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", PART_KINDS)
def test_layout_is_that_of_mvtec(root: Path, kind: str) -> None:
    assert len(list((root / kind / "train" / "good").glob("*.png"))) == 5
    assert len(list((root / kind / "test" / "good").glob("*.png"))) == 3
    defects = [path for path in (root / kind / "test").glob("*/*.png") if path.parent.name != "good"]
    assert len(defects) == 4
    for path in defects:
        assert path.parent.name in {function.__name__ for function in DEFECTS[kind]}
        mask = np.asarray(Image.open(root / kind / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"))
        assert mask.shape == (96, 96)
        assert set(np.unique(mask)) == {0, 255}
        assert np.asarray(Image.open(path)).shape == (96, 96, 3)
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_bytes_repeat_when_the_seed_is_the_same(root: Path, tmp_path: Path) -> None:
    np.random.seed(7)
    DemoParts(root=tmp_path, category="circuit_board", **SMALL).prepare_data()
    assert files_of(tmp_path / "circuit_board") == files_of(root / "circuit_board")


def test_parts_differ_when_the_seed_differs(root: Path, tmp_path: Path) -> None:
    DemoParts(root=tmp_path, category="brushed_metal", **SMALL, seed=1).prepare_data()
    ours = {path.read_bytes() for path in (tmp_path / "brushed_metal").rglob("*.png") if "ground" not in str(path)}
    assert ours.isdisjoint(files_of(root / "brushed_metal").values())


def test_global_random_state_is_untouched(tmp_path: Path) -> None:
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    DemoParts(root=tmp_path, category="printed_cap", **SMALL).prepare_data()
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    assert torch.equal(torch_state, torch.get_rng_state())


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("network call"))
    DemoParts(root=tmp_path, category="woven_fabric", **SMALL).prepare_data()


def test_labels_and_masks_agree_when_served(root: Path) -> None:
    data = DemoParts(root=root, category="all", **SMALL)
    data.prepare_data()
    data.setup()
    assert (len(data.train_data), len(data.val_data), len(data.test_data)) == (16, 4, 28)
    assert data.task == "segmentation"
    batches = list(data.test_dataloader())
    for batch in batches:
        assert torch.equal(batch.gt_mask.flatten(1).any(1), batch.gt_label.bool())
    assert sum(int(batch.gt_label.sum()) for batch in batches) == 16
    assert not any(item.gt_label for item in data.val_data)


def test_splits_share_no_part(root: Path) -> None:
    plan = RenderPlan(kind="printed_cap", image_size=96, num_train=40, num_test_good=40, num_test_defect=40, seed=0)
    groups = [plan.views(group, 40) for group in ("train/good", "test/good", "test/defect")]
    assert len({view.seed for group in groups for view in group}) == 120
    data = DemoParts(root=root, category="all", **SMALL)
    data.setup()
    train, val, test = (set(part.samples.image_path) for part in (data.train_data, data.val_data, data.test_data))
    assert len(train | val | test) == len(train) + len(val) + len(test)


@pytest.mark.parametrize("kind", PART_KINDS)
def test_masks_are_where_the_part_changed(kind: str) -> None:
    for index, view in enumerate(draw_views(len(DEFECTS[kind]), seed=11)):
        part = make_part(kind, size=128, view=view)
        before = photograph(part)
        name, image, mask = defective(part, index=index)
        change = np.abs(image - render(part)).max(axis=2)
        assert np.array_equal(photograph(part), before), f"{name} changed the good part"
        assert AREA_RANGE[0] <= mask.mean() <= AREA_RANGE[1]
        assert change[mask].max() > VISIBLE_CHANGE
        assert change[mask].mean() > 8 * change[~mask].mean()


def test_change_mask_equals_a_hand_made_square_when_it_differs_there_only() -> None:
    clean = np.full((256, 256, 3), 0.5)
    image = clean.copy()
    image[100:120, 60:90] += 0.2
    image[10, 10] += 0.5  # a speck is no defect
    mask = change_mask(clean, image)
    assert mask[101:119, 61:89].all()
    assert mask.sum() <= 24 * 34
    assert not change_mask(clean, clean).any()


@pytest.mark.parametrize("kind", PART_KINDS)
def test_every_defect_kind_can_be_seen(kind: str) -> None:
    wanted = {function.__name__ for function in DEFECTS[kind]}
    views = draw_views(2 * len(wanted), seed=5)
    found = {defective(make_part(kind, size=128, view=view), index=i)[0] for i, view in enumerate(views)}
    assert found == wanted


def test_no_trivial_cue_separates_the_classes() -> None:
    values, labels = [], []
    for kind in PART_KINDS:
        plan = RenderPlan(kind=kind, image_size=96, num_train=2, num_test_good=24, num_test_defect=24, seed=0)
        good = [render(make_part(kind, size=96, view=view)) for view in plan.views("test/good", 24)]
        views = plan.views("test/defect", 24)
        bad = [defective(make_part(kind, size=96, view=view), index=i)[1] for i, view in enumerate(views)]
        values += [(image.mean(), image.std()) for image in good + bad]
        labels += [0] * 24 + [1] * 24
    values, labels = np.array(values), np.array(labels)
    for chosen in (slice(None), *(slice(48 * k, 48 * k + 48) for k in range(4))):
        for cue in range(2):
            score = roc_auc_score(labels[chosen], values[chosen, cue])
            assert max(score, 1 - score) <= 0.65, (chosen, cue, score)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category": "bottle"}, "brushed_metal, woven_fabric, printed_cap, circuit_board, all"),
        ({"num_train": -1}, "`num_train` must be an integer of at least 2, got -1"),
        ({"num_test_good": 0}, "num_test_good"),
        ({"num_test_defect": 2.5}, "num_test_defect"),
        ({"image_size": 32}, "`image_size` must be an integer of at least 96"),
        ({"seed": -3}, "seed"),
        ({"val_split_mode": "from_dir"}, "from_train"),
    ],
)
def test_error_names_the_argument_when_it_is_bad(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemoParts(**options)


def test_other_parameters_are_refused_when_the_folder_exists(root: Path) -> None:
    before = files_of(root)
    with pytest.raises(FileExistsError, match=r"has num_train=5, wanted num_train=6"):
        DemoParts(root=root, category="printed_cap", **{**SMALL, "num_train": 6}).prepare_data()
    assert files_of(root) == before


@pytest.mark.parametrize("marker", [None, "not json", json.dumps([1])])
def test_foreign_folders_are_refused(tmp_path: Path, marker: str | None) -> None:
    folder = tmp_path / "printed_cap"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    if marker is not None:
        (folder / MARKER_NAME).write_text(marker)
    with pytest.raises(FileExistsError, match="root"):
        DemoParts(root=tmp_path, category="printed_cap", **SMALL).prepare_data()
    assert (folder / "mine.txt").read_text() == "keep"


def test_nothing_is_left_when_rendering_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anomalib_synth.demo.writer.defective", fail)
    with pytest.raises(KeyboardInterrupt):
        DemoParts(root=tmp_path, category="printed_cap", **SMALL).prepare_data()
    assert not list(tmp_path.iterdir())


def test_setup_says_what_to_do_when_nothing_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="prepare_data"):
        DemoParts(root=tmp_path).setup()
