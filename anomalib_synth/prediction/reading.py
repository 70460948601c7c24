"""Reads images ahead of the detector, several at a time, and groups them into batches."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.images import ImageReader, UnreadableImageError, hash_bytes, read_bytes, to_tensor
from anomalib_synth.images.batching import batch_by_size
from anomalib_synth.prediction.watching import ImageFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    import numpy as np
    import torch

    from anomalib_synth.images import WhitePoint
    from anomalib_synth.prediction.watching import FileSource, StopRequest

_THREADS = min(4, os.cpu_count() or 1)
_LARGE = 2**25  # pixels; larger images are read one at a time
_BATCH_BYTES = 2**28  # of the images in one batch


@dataclass(frozen=True, kw_only=True)
class LoadedImage:
    """An image that was read and is ready to be judged.

    Args:
        file: Its file.
        content: Digest of the file's bytes.
        pixels: (H, W, 3) uint8 at the size of the file.
        image: (3, h, w) float32 in [0, 1] as it goes into a batch.
    """

    file: ImageFile
    content: str
    pixels: np.ndarray
    image: torch.Tensor


@dataclass(frozen=True)
class UnreadableFile:
    """A file that cannot be judged, and why."""

    file: ImageFile
    content: str
    reason: str


@dataclass(frozen=True)
class KnownFile:
    """A file that was judged before."""

    file: ImageFile
    content: str


@dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads files and groups them into batches.

    Args:
        fit: Turns an image (3, H, W) in [0, 1] into what goes into a batch; called from several threads.
        white_point: White of files of more than 8 bits.
        is_known: Whether a file of this name and digest was judged before.
        skip: Called with each file that was judged before or cannot be read.
        batch_size: Largest number of images in a batch.
        stop: Ends the reading.
    """

    fit: Callable[[torch.Tensor], torch.Tensor]
    white_point: WhitePoint
    is_known: Callable[[str, str], bool]
    skip: Callable[[KnownFile | UnreadableFile], None]
    batch_size: int
    stop: StopRequest

    def batches(self, source: FileSource) -> Iterator[list[LoadedImage]]:
        """Yield batches of images of one size; a batch that is not full does not wait for the next look."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for look in source.looks():
                for name, reason in look.foreign.items():
                    self.skip(UnreadableFile(ImageFile(name, Path(name)), "", reason))
                yield from self._group(self._read_all(pool, look.files, source))
                if self.stop.asked:
                    return

    def _group(self, images: Iterator[LoadedImage]) -> Iterator[list[LoadedImage]]:
        return batch_by_size(
            images, lambda shown: shown.image.shape, count=self.batch_size, most=_BATCH_BYTES,
            weigh=lambda shown: shown.pixels.nbytes,
        )  # fmt: skip

    def _read_all(
        self, pool: ThreadPoolExecutor, files: Sequence[ImageFile], source: FileSource
    ) -> Iterator[LoadedImage]:
        """Yield the images to judge, in order, while the next ones are read."""
        running: deque[Future[LoadedImage | KnownFile | UnreadableFile]] = deque()
        left = deque(files)
        ahead = self.batch_size
        while running or (left and not self.stop.asked):
            while left and len(running) < ahead and not self.stop.asked:
                running.append(pool.submit(self._read, left.popleft()))
            if not running:
                return
            found = running.popleft().result()
            if isinstance(found, LoadedImage):
                ahead = 1 if found.pixels.size > 3 * _LARGE else self.batch_size
                yield found
            elif isinstance(found, KnownFile) or not source.give_back(found.file):
                self.skip(found)

    def _read(self, file: ImageFile) -> LoadedImage | KnownFile | UnreadableFile:
        content = ""
        try:
            data = read_bytes(file.path)
            content = hash_bytes(data)
            if self.is_known(file.name, content):
                return KnownFile(file, content)
            pixels = ImageReader(None, self.white_point).decode(data)
        except UnreadableImageError as error:
            return UnreadableFile(file, content, str(error))
        return LoadedImage(file=file, content=content, pixels=pixels, image=self.fit(to_tensor(pixels)))
