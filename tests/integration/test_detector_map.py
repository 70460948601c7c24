"""The map that the marking page shows lies where the detector looks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, Grayscale, Normalize, Pad, RandomHorizontalFlip, Resize

from anomalib_synth.learning.detector_map import DetectorMap

STRONG = Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])


class Brightness(torch.nn.Module):
    """A detector whose map is how bright the image is that it is shown."""

    def __init__(self, transform, **post) -> None:
        super().__init__()
        self.pre_processor = PreProcessor(transform=transform) if transform else None
        self.post_processor = PostProcessor(**post)
        self.post_processor.pixel_min.fill_(-3)
        self.post_processor.pixel_max.fill_(3)
        self.post_processor._pixel_threshold.fill_(0)

    def forward(self, batch: torch.Tensor) -> InferenceBatch:
        seen = self.pre_processor(batch) if self.pre_processor else batch
        return self.post_processor(InferenceBatch(pred_score=seen.amax((1, 2, 3)), anomaly_map=seen.mean(1)))


class Bending(torch.nn.Module):
    """Takes some columns of an image."""

    def __init__(self, columns: torch.Tensor) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[..., self.columns]


def draw(height: int, width: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A black image with a white block a little off its centre."""
    image = np.zeros((height, width, 3), np.uint8)
    block = slice(int(0.4 * height), int(0.55 * height)), slice(int(0.55 * width), int(0.7 * width))
    image[block] = 255
    return image, block


@pytest.mark.parametrize("size", [(120, 160), (160, 120), (200, 200)])
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Resize((64, 64))],
        [Resize((128, 128)), CenterCrop((96, 96))],
        [Resize(100), CenterCrop(90), STRONG],
        [CenterCrop((100, 110)), Resize((64, 64))],
        [Pad(30), Resize((96, 96))],
        [RandomHorizontalFlip(p=1), Resize((128, 128)), Grayscale(3)],
    ],
)
def test_the_map_lies_on_the_defect_when_the_model_is_shown_a_part(size, steps) -> None:
    image, block = draw(*size)
    levels = DetectorMap.of(Brightness(Compose(steps) if steps else None)).propose(image)
    assert levels.shape == size
    high = levels > levels.max() - 0.05
    rows, columns = np.nonzero(high)
    for found, meant in ((rows, block[0]), (columns, block[1])):
        assert abs(found.min() - meant.start) <= 4
        assert abs(found.max() + 1 - meant.stop) <= 4


def test_the_map_is_zero_when_the_model_does_not_look_there() -> None:
    model = Brightness(Compose([Resize((100, 100)), CenterCrop((80, 80))]))
    levels = DetectorMap.of(model).propose(np.full((200, 300, 3), 255, np.uint8))
    expected = np.zeros((200, 300), bool)
    expected[20:180, 30:270] = True
    np.testing.assert_array_equal(levels > 0, expected)


def test_a_detector_is_refused_when_its_map_is_not_normalised() -> None:
    with pytest.raises(ValueError, match=r"post-processor of this Brightness does not normalise\. Train it with"):
        DetectorMap.of(Brightness(None, enable_normalization=False))
    unfitted = Brightness(None)
    unfitted.post_processor.pixel_max.fill_(torch.nan)
    with pytest.raises(ValueError, match="does not normalise"):
        DetectorMap.of(unfitted)


def test_a_detector_is_refused_when_its_transform_bends_images() -> None:
    model = Brightness(None)
    bent = (torch.linspace(0, 1, 160) ** 3 * 159).long()
    model.pre_processor = Bending(bent)
    with pytest.raises(
        ValueError, match="`detector` must move, scale, turn or crop its images, but its transform bends"
    ):
        DetectorMap.of(model).propose(draw(120, 160)[0])
