"""The quality of a synthetic sample as the similarity of its image and its caption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.images.batching import fill_chunks
from anomalib_synth.models.threads import one_thread
from anomalib_synth.quality.windows import MARGIN, WINDOW_SIZE, crop_view, fit_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.encoders.image_text import ImageTextEncoder

_CHUNK = 16
_CHUNK_ON_CPU = 1
_KEPT_CAPTIONS = 4096


class ImageTextScorer:
    r"""Scores how well images show what their captions say.

    After "QARAD" (arXiv 2508.03539): the similarity of image and text in a dual encoder, here
    :math:`s = (1 + \cos) / 2`. We differ: the authors' public code encodes the whole image, already normalised for the
    detector, where a defect of one per cent is barely seen; we take the image in [0, 1] and average the score of the
    whole image with that of the window around the mask. Whole images are resized to the encoder's square input without
    cropping, for a defect may lie anywhere.

    A score has the same bits whatever the batch: views are cut row by row and encoded in chunks of one size (on a CPU
    one by one, on one thread), and products are added up exactly.

    Args:
        encoder: Encodes images and captions.
        window_size: Side in pixels of the windows the encoder is used to, >= 2; a mask's window has at least half of
            it.
        share_of_window: Weight of the window's score in the mean, in [0, 1]. On images of 256 px, whole ones alone
            hardly told right captions from wrong ones (AUROC .52), windows alone did (.89); at 0.75 it was .88.
        margin: How much longer a window is than its mask's bounding box, >= 0; 1 is twice as long.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> class Brightness:
        ...     image_size = 8
        ...     def encode_images(self, images):
        ...         level = images.mean((1, 2, 3))
        ...         return torch.stack([level, (1 - level**2).sqrt()], 1)
        ...     def encode_captions(self, captions):
        ...         return torch.tensor([[float("bright" in c), float("bright" not in c)] for c in captions])
        >>> mask = torch.zeros(2, 1, 32, 32)
        >>> mask[:, :, 8:16, 8:16] = 1
        >>> ImageTextScorer(Brightness())(torch.ones(2, 3, 32, 32), mask, ["a bright spot", "a dark spot"])
        tensor([1.0000, 0.5000])
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        *,
        window_size: int = WINDOW_SIZE,
        share_of_window: float = 0.75,
        margin: float = MARGIN,
    ) -> None:
        if window_size < 2:
            msg = f"`window_size` must be >= 2, got {window_size}."
            raise ValueError(msg)
        if not 0 <= share_of_window <= 1:
            msg = f"`share_of_window` must be in [0, 1], got {share_of_window}."
            raise ValueError(msg)
        if not margin >= 0:
            msg = f"`margin` must be >= 0, got {margin}."
            raise ValueError(msg)
        self.encoder = encoder
        self.window_size = window_size
        self.share_of_window = share_of_window
        self.margin = margin
        self._captions: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        """Return the scores of a batch.

        Args:
            images: (B, C, H, W) float in [0, 1], C = 1 or 3, before any normalisation.
            masks: (B, 1, H, W), non-zero where the defect is.
            captions: B captions.

        Returns:
            (B,) float32 in [0, 1] on the images' device; 1 where the mask is empty.

        Raises:
            ValueError: If shapes or numbers do not agree.
        """
        self._check(images, masks, captions)
        scores = torch.ones(len(images))
        rows = masks.flatten(1).any(1).nonzero().flatten().tolist()
        if rows:
            with torch.autocast(images.device.type, enabled=False), one_thread():
                cosines = torch.stack([self._compare(view, captions, rows) for view in self._cut(images, masks, rows)])
                share = torch.tensor([1 - self.share_of_window, self.share_of_window], dtype=torch.float64)
                mean = (cosines * share[:, None]).sum(0)
            scores[rows] = ((1 + mean) / 2).clamp(0, 1).float()
        return scores.to(images.device)

    def _cut(
        self, images: torch.Tensor, masks: torch.Tensor, rows: list[int]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the whole images and the masks' windows, each (3, S, S)."""
        size, least = self.encoder.image_size, max(1, self.window_size // 2)
        whole = [fit_view(images[row], size) for row in rows]
        return whole, [crop_view(images[row], masks[row], size, least=least, margin=self.margin) for row in rows]

    def _compare(self, views: list[torch.Tensor], captions: Sequence[str], rows: list[int]) -> torch.Tensor:
        """Return the cosines (N,) float64 of views and their captions."""
        chunk = _CHUNK_ON_CPU if views[0].device.type == "cpu" else _CHUNK
        encoded = []
        for filled, count in fill_chunks(views, chunk):
            encoded.append(self.encoder.encode_images(torch.stack(filled))[:count].double().cpu())
        texts = torch.stack([self._read(captions[row]) for row in rows])
        # sums of floats depend on how many rows are summed side by side; sums of integers do not
        return (torch.cat(encoded) * texts * 2.0**40).round().long().sum(1).double() / 2.0**40

    def _read(self, caption: str) -> torch.Tensor:
        """Return the vector of a caption, encoded alone, once."""
        if caption not in self._captions:
            if len(self._captions) >= _KEPT_CAPTIONS:
                self._captions.clear()
            self._captions[caption] = self.encoder.encode_captions([caption])[0].double().cpu()
        return self._captions[caption]

    @staticmethod
    def _check(images: torch.Tensor, masks: torch.Tensor, captions: Sequence[str]) -> None:
        if images.ndim != 4 or images.shape[1] not in {1, 3} or not images.is_floating_point():
            msg = f"`images` must be (B, C, H, W) float with 1 or 3 channels, got {images.dtype} {tuple(images.shape)}."
            raise ValueError(msg)
        if masks.shape != (len(images), 1, *images.shape[-2:]):
            msg = f"`masks` must be (B, 1, H, W) like the images {tuple(images.shape)}, got {tuple(masks.shape)}."
            raise ValueError(msg)
        if len(captions) != len(images):
            msg = f"`captions` must be {len(images)} texts, one an image, got {len(captions)}."
            raise ValueError(msg)
