"""Items and batches that carry source, quality and origin."""

from __future__ import annotations

import pytest
import torch
from torchvision.tv_tensors import Image

from anomalib_synth.data import SyntheticImageBatch, SyntheticImageItem


def item(quality: float = 1.0, side: int = 8) -> SyntheticImageItem:
    image = Image(torch.rand(3, side, side))
    return SyntheticImageItem(image=image, gt_label=0, source=image, quality=quality, synthetic=quality < 1)


def test_items_collate_and_come_back_when_batched():
    items = [item(0.25), item(1.0)]
    batch = SyntheticImageBatch.collate(items)
    assert batch.source.shape == (2, 3, 8, 8)
    assert batch.quality.tolist() == [0.25, 1.0]
    assert batch.synthetic.tolist() == [True, False]
    assert torch.equal(batch.items[0].source, items[0].source)
    assert batch.items[0].quality == 0.25


def test_source_is_resized_with_the_image_when_sizes_differ():
    batch = SyntheticImageBatch.collate([item(side=8), item(side=12)])
    assert batch.image.shape == batch.source.shape == (2, 3, 12, 12)


def test_batch_fields_move_when_the_device_changes():
    from lightning.fabric.utilities import move_data_to_device

    batch = move_data_to_device(SyntheticImageBatch.collate([item()]), torch.device("meta"))
    assert batch.source.device.type == batch.quality.device.type == "meta"


def test_items_turn_to_numpy_without_the_extra_fields():
    assert item().to_numpy().image.shape == (8, 8, 3)
    assert SyntheticImageBatch.collate([item()]).to_numpy().image.shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("field", "value"), [("source", torch.rand(8, 8)), ("quality", torch.ones(2)), ("synthetic", torch.ones(2))]
)
def test_item_refuses_a_field_when_its_rank_is_wrong(field: str, value: torch.Tensor):
    with pytest.raises(ValueError, match=f"`{field}`"):
        SyntheticImageItem(**{"image": torch.rand(3, 8, 8), field: value})
