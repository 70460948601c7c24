"""Windows of normals with captioned defects, on which the local models are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.proposal import crop
from anomalib_synth.generators.seeding import RandomStream, hash64

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Windows of one size, each with one defect.

    Shape:
        - ``source``, ``image``: (B, 3, S, S) float32 in [0, 1], before and after the defect
        - ``mask``: (B, 1, S, S) float32 in {0, 1}, never empty
        - ``captions``, ``families``: B strings
    """

    source: torch.Tensor
    image: torch.Tensor
    mask: torch.Tensor
    captions: list[str]
    families: list[str]


class WindowSampler:
    """Draws training windows; seed and step alone determine them.

    Args:
        normals: Images (3, H, W), uint8 or float in [0, 1], each at least ``size`` high and wide.
        generator: Draws the captioned defects onto the windows.
        size: Side of a window in pixels.
        frame: Largest side in pixels of the piece of an image on which a defect is drawn, before a window around it is
            cut; the defect's size, also in its caption, is relative to this piece. None draws on the window itself.
        seed: Seed of all draws.

    Raises:
        ValueError: If there is no image, or one is smaller than a window or does not have 3 channels.
    """

    def __init__(
        self,
        normals: Sequence[torch.Tensor],
        generator: AnomalyGenerator,
        *,
        size: int = 64,
        frame: int | None = None,
        seed: int = 0,
    ) -> None:
        if not normals:
            msg = "`normals` must hold at least one image, got none."
            raise ValueError(msg)
        for image in normals:
            if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < size:
                msg = (
                    f"`normals` must be (3, H, W) with H and W >= {size}, the side of a window; got "
                    f"{tuple(image.shape)}. Resize the images or choose a smaller window."
                )
                raise ValueError(msg)
        self.normals = list(normals)
        self.generator = generator
        self.size = size
        self.frame = size if frame is None else max(size, frame)
        self.seed = seed

    def draw_sources(self, step: int, count: int) -> torch.Tensor:
        """Draw windows without defects, randomly turned and mirrored: (count, 3, S, S) in [0, 1]."""
        return torch.stack([self._cut(step, number, self.size) for number in range(count)])

    def _cut(self, step: int, number: int, largest: int) -> torch.Tensor:
        """Cut a random square from a normal; its side is a multiple of a window's, at most ``largest``."""
        rng = RandomStream(hash64(self.seed, "window", step, number))
        image = self.normals[rng.choice(range(len(self.normals)))]
        side = min(largest, min(image.shape[1:]) // self.size * self.size)
        top = int(rng.unit() * (image.shape[1] - side + 1))
        left = int(rng.unit() * (image.shape[2] - side + 1))
        window = crop(image[None], [0], [top], [left], side, side)[0]
        window = window.rot90(int(rng.unit() * 4), (1, 2))
        return _to_unit(window.flip(2) if rng.unit() < 0.5 else window)

    def draw(self, step: int, count: int) -> WindowBatch:
        """Draw at most ``count`` windows with defects; draws that fail the generator's checks are left out."""
        sources = [self._cut(step, number, self.frame) for number in range(count)]
        drawn: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, str, str]] = {}
        for side in sorted({len(source[0]) for source in sources}):
            numbers = [number for number, source in enumerate(sources) if len(source[0]) == side]
            seeds = [hash64(self.seed, "defect", step, number) for number in numbers]
            sample = self.generator(torch.stack([sources[number] for number in numbers]), seeds=seeds)
            for row in sample.accepted.nonzero().flatten().tolist():
                number = numbers[row]
                part = self._place(sample.mask[row, 0] > 0, RandomStream(hash64(self.seed, "place", step, number)))
                cut = (sample.source[row][part], sample.image[row][part], sample.mask[row][part])
                drawn[number] = (*cut, sample.caption[row], sample.provenance[row].family)
        rows = [drawn[number] for number in sorted(drawn)]
        size = self.size
        return WindowBatch(
            source=torch.stack([row[0] for row in rows]) if rows else torch.zeros(0, 3, size, size),
            image=torch.stack([row[1] for row in rows]) if rows else torch.zeros(0, 3, size, size),
            mask=torch.stack([row[2] for row in rows]) if rows else torch.zeros(0, 1, size, size),
            captions=[row[3] for row in rows],
            families=[row[4] for row in rows],
        )

    def _place(self, mask: torch.Tensor, rng: RandomStream) -> tuple[slice, slice, slice]:
        """Return a random window that contains at least one pixel of a mask (h, w)."""
        inside = mask.nonzero()
        pixel = inside[int(rng.unit() * len(inside))].tolist()
        starts = []
        for at, low, high, length in zip(
            pixel, inside.amin(0).tolist(), inside.amax(0).tolist(), mask.shape, strict=True
        ):
            # contain the whole defect if it fits into a window
            first, last = (high + 1 - self.size, low) if high - low < self.size else (at + 1 - self.size, at)
            first, last = max(first, 0), min(last, length - self.size)
            starts.append(first + int(rng.unit() * (last - first + 1)))
        y, x = starts
        return slice(None), slice(y, y + self.size), slice(x, x + self.size)


def _to_unit(window: torch.Tensor) -> torch.Tensor:
    return window.float() / 255 if window.dtype == torch.uint8 else window.float()
