"""SyntheticAnomaly: image and mask change together, and nothing else does."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from anomalib.data import AnomalibDataModule, Folder
from kornia import augmentation
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip

from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.generators import RuleBasedGenerator, SampleChecks
from anomalib_synth.generators.seeding import gets_defect, hash64
from anomalib_synth.transforms import SyntheticAnomaly

SIDE = 64


def grey() -> tv_tensors.Image:
    noise = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return tv_tensors.Image(0.5 + 0.02 * noise)


def empty(*shape: int, dtype: torch.dtype = torch.uint8) -> tv_tensors.Mask:
    return tv_tensors.Mask(torch.zeros(shape or (SIDE, SIDE), dtype=dtype))


def transform(probability: float = 1.0, **kwargs) -> SyntheticAnomaly:
    return SyntheticAnomaly(RuleBasedGenerator(["scratch", "noise"], strength=(0.7, 1.0), **kwargs), probability)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (1, SIDE, SIDE)])
def test_image_and_mask_change_together(dtype: torch.dtype, shape: tuple[int, ...]):
    before, blank = grey(), empty(*shape, dtype=dtype)
    image, mask = transform()(before, blank)
    assert type(image) is tv_tensors.Image
    assert isinstance(mask, tv_tensors.Mask)
    assert (mask.dtype, mask.shape) == (dtype, shape)
    changed = (image != before).any(0)
    assert changed.any()
    assert not (changed & ~mask.reshape(SIDE, SIDE).bool()).any()
    assert set(mask.unique().tolist()) == {0, 1}
    assert torch.equal(before, grey())
    assert not blank.any()


def test_plain_tensor_is_taken_as_the_image_when_there_is_no_other():
    image, mask = transform()(grey().as_subclass(torch.Tensor), empty())
    assert type(image) is torch.Tensor
    assert ((image != grey().as_subclass(torch.Tensor)).any(0) & ~mask.bool()).sum() == 0
    assert mask.any()


def test_second_image_passes_through_when_there_are_two():
    source = grey()
    image, after, _ = transform()(grey(), source, empty())
    assert after is source
    assert not torch.equal(image, source)


def test_anomalous_image_is_returned_unchanged():
    mask = empty()
    mask[3, 4] = 1
    image = grey()
    after, mask_after = transform()(image, mask)
    assert after is image
    assert mask_after is mask


def test_rejected_draw_leaves_the_image_unchanged():
    image, mask = transform(checks=SampleChecks(min_visibility=1e6))(grey(), empty())
    assert torch.equal(image, grey())
    assert not mask.any()


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.3, 4, 28), (1.0, 38, 40)])
def test_share_of_defects_follows_the_probability(probability: float, low: int, high: int):
    call = transform(probability)
    defects = sum(bool(call(grey(), empty())[1].any()) for _ in range(40))
    assert low <= defects <= high


def test_calls_differ_and_replay_when_the_process_seed_is_the_same():
    torch.manual_seed(3)
    call, twin = transform(), transform()
    first, second = call(grey(), empty())[0], call(grey(), empty())[0]
    assert not torch.equal(first, second)
    assert torch.equal(twin(grey(), empty())[0], first)
    torch.manual_seed(4)
    assert not torch.equal(transform()(grey(), empty())[0], first)
    torch.manual_seed(3)
    assert not torch.equal(transform(seed=1)(grey(), empty())[0], first)


def test_random_state_is_untouched_when_called():
    torch.manual_seed(0)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    transform(0.5)(grey(), empty())
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


class Same(Dataset):
    def __init__(self, augment: SyntheticAnomaly) -> None:
        self.augment = augment

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.augment(grey(), empty())[0].as_subclass(torch.Tensor)


def test_workers_and_epochs_draw_different_defects():
    torch.manual_seed(0)
    loader = DataLoader(Same(transform()), batch_size=1, num_workers=2)
    images = [image for _ in range(2) for image in loader]
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_composition_keeps_image_and_mask_aligned():
    after = Compose([transform(), RandomHorizontalFlip(1.0)])
    image, mask = after(grey(), empty())
    assert not ((image != grey().flip(-1)).any(0) & ~mask.bool()).any()
    assert mask.any()


def test_error_names_the_datamodule_when_there_is_no_mask():
    with pytest.raises(ValueError, match=r"anomalib_synth\.data\.SyntheticDataModule") as error:
        transform()(grey())
    module, _, name = "anomalib_synth.data.SyntheticDataModule".rpartition(".")
    assert (SyntheticDataModule.__name__, SyntheticDataModule.__module__.startswith(module)) == (name, True)
    assert "(image, mask)" in str(error.value)


def test_error_reaches_the_user_when_a_folder_is_a_classification_task(tmp_path: Path):
    (tmp_path / "good").mkdir()
    for n in range(6):
        PIL.Image.fromarray(np.full((SIDE, SIDE, 3), 100 + n, np.uint8)).save(tmp_path / "good" / f"{n}.png")
    base = Folder(name="x", root=tmp_path, normal_dir="good", num_workers=0, train_augmentations=transform())
    base.setup()
    with pytest.raises(ValueError, match="SyntheticDataModule"):
        base.train_data[0]
    wrapped = SyntheticDataModule(base, RuleBasedGenerator(["noise"]), root=tmp_path / "kept", val_ratio=0.4)
    wrapped.setup()
    assert wrapped.train_data[0].gt_mask.any()


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (tv_tensors.Image((grey() * 255).to(torch.uint8)), r"must be a float tensor .*got torch.uint8"),
        (PIL.Image.new("RGB", (SIDE, SIDE)), r"must be a float tensor .*got none"),
        (tv_tensors.Image(torch.rand(2, 3, SIDE, SIDE)), r"\(C, H, W\)"),
        (tv_tensors.Image(torch.rand(3, SIDE, SIDE) * 3), r"in \[0, 1\]"),
    ],
)
def test_error_is_clear_when_the_image_is_not_a_float_image(image: object, match: str):
    with pytest.raises(ValueError, match=match):
        transform()(image, empty())


def test_constructor_refuses_when_an_argument_is_wrong():
    with pytest.raises(ValueError, match=r"`probability` must be in \[0, 1\], got 1.5"):
        transform(1.5)
    with pytest.raises(TypeError, match="`generator` must be an AnomalyGenerator"):
        SyntheticAnomaly("scratch")


def augmented_folder() -> dict:
    augmentation = {
        "class_path": "anomalib_synth.transforms.SyntheticAnomaly",
        "init_args": {
            "generator": {
                "class_path": "anomalib_synth.generators.RuleBasedGenerator",
                "init_args": {"families": ["scratch"]},
            },
            "probability": 0.25,
        },
    }
    arguments = {"name": "x", "normal_dir": "good", "train_augmentations": augmentation}
    return {"class_path": "anomalib.data.Folder", "init_args": arguments}


def test_yaml_builds_the_transform(tmp_path: Path):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(augmented_folder()))
    built = AnomalibDataModule.from_config(tmp_path / "data.yaml").train_augmentations
    assert isinstance(built, SyntheticAnomaly)
    assert built.probability == 0.25


def test_yaml_typo_is_an_error_when_deep_in_the_transform(tmp_path: Path, capsys: pytest.CaptureFixture):
    broken = copy.deepcopy(augmented_folder())
    broken["init_args"]["train_augmentations"]["init_args"]["generator"]["init_args"]["familys"] = ["scratch"]
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(SystemExit):
        AnomalibDataModule.from_config(tmp_path / "data.yaml")
    assert "familys" in capsys.readouterr().err


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return 0.5 + 0.02 * noise, torch.zeros(count, 1, SIDE, SIDE)


def in_kornia(*after: torch.nn.Module, probability: float = 1.0, **kwargs) -> augmentation.AugmentationSequential:
    return augmentation.AugmentationSequential(transform(probability), *after, data_keys=["input", "mask"], **kwargs)


@pytest.mark.parametrize("shape", [(4, 1, SIDE, SIDE), (4, SIDE, SIDE)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_kornia_batch_changes_with_its_masks_when_they_are_empty(shape: tuple[int, ...], dtype: torch.dtype):
    before, blank = batch()
    marked = blank.reshape(shape).to(dtype)
    marked[2, ..., 3, 4] = 1  # a defect already: left as it is
    image, mask = in_kornia()(before, marked)
    assert mask.dtype == dtype
    changed, inside = (image != before).any(1), mask.reshape(4, SIDE, SIDE) > 0
    assert changed.flatten(1).any(1).tolist() == [True, True, False, True]
    assert not (changed & ~inside).any()
    assert torch.equal(mask[2].reshape(SIDE, SIDE), marked[2].reshape(SIDE, SIDE))
    assert torch.equal(before, batch()[0])
    assert marked.sum() == 1


def test_kornia_steps_keep_image_and_mask_aligned_when_they_follow():
    before, blank = batch()
    image, mask = in_kornia(augmentation.RandomHorizontalFlip(p=1.0))(before, blank)
    assert mask.flatten(1).any(1).all()
    assert not ((image != before.flip(-1)).any(1, keepdim=True) & (mask == 0)).any()


def test_kornia_replays_the_draw_when_its_parameters_are_given():
    call = in_kornia()
    first = call(*batch())
    params = call._params
    assert not torch.equal(call(*batch())[0], first[0])
    assert all(torch.equal(one, other) for one, other in zip(call(*batch(), params=params), first, strict=True))


def test_random_state_is_untouched_when_kornia_calls():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    in_kornia(probability=0.5)(*batch())
    assert torch.equal(before, torch.random.get_rng_state())


def test_kornia_images_get_defects_of_their_own_unless_the_batch_is_to_have_the_same():
    before = batch(1)[0].expand(3, -1, -1, -1)
    image, _ = in_kornia()(before, batch(3)[1])
    assert len({row.numpy().tobytes() for row in image}) == 3
    image, _ = in_kornia(same_on_batch=True)(before, batch(3)[1])
    assert len({row.numpy().tobytes() for row in image}) == 1


def test_error_is_clear_when_kornia_shows_no_mask():
    images, masks = batch()
    with pytest.raises(ValueError, match="needs one image and one mask"):
        augmentation.AugmentationSequential(transform(), data_keys=["input"])(images)
    nested = augmentation.AugmentationSequential(augmentation.ImageSequential(transform()), data_keys=["input", "mask"])
    with pytest.raises(ValueError, match="must be a direct step"):
        nested(images, masks)
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W\) or \(B, H, W\)"):
        in_kornia()(images, masks.expand(-1, 2, -1, -1))


def test_images_get_a_defect_as_their_seeds_say_when_torchvision_or_kornia_calls(monkeypatch) -> None:
    asked = []
    step = transform(0.4)
    draw = RuleBasedGenerator.__call__

    def note(self, images, *, seeds, **more):
        asked.extend(int(seed) for seed in seeds)
        return draw(self, images, seeds=seeds, **more)

    monkeypatch.setattr(RuleBasedGenerator, "__call__", note)
    planned = [hash64(0, torch.initial_seed(), call) for call in range(12)]
    for _ in planned:
        step(grey(), empty())
    assert asked == [seed for seed in planned if gets_defect(seed, 0.4)]
    seeds = step.forward_parameters((16, 3, SIDE, SIDE))
    assert seeds["batch_prob"].tolist() == [gets_defect(seed, 0.4) for seed in seeds["seeds"].tolist()]
