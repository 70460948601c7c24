"""Seeds and random numbers: every random number of a sample comes from that sample's own seed."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
_BLOCK = 64


def hash64(*parts: int | float | str) -> int:
    """Hash numbers and strings to 63 bits, the same on every machine and in every process.

    One bit short of 64, so that the result fits a (signed) int64 tensor.

    Example:
        >>> hash64(0, 3, "part_017.png") == hash64(0, 3, "part_017.png")
        True
    """
    message = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts).encode()
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "little") >> 1


def derive_seeds(base_seed: int, epoch: int, keys: Sequence[int | str], repeat: int = 0) -> torch.Tensor:
    """Derive one seed for each image from the base seed, the epoch, the image's key and the repeat.

    Args:
        base_seed: Seed of the run.
        epoch: Epoch, so that an image gets another defect in every epoch.
        keys: One key for each image: its path, or its index.
        repeat: Number of the copy when an image is used more than once in an epoch.

    Returns:
        (B,) int64 tensor on the CPU.
    """
    return torch.tensor([hash64(base_seed, epoch, key, repeat) for key in keys], dtype=torch.int64)


def image_key(path: str | PurePath) -> str:
    """Return what identifies an image in its data set: the last three parts of its path.

    A data set that is moved, or read from another working directory, thus keeps its defects.

    Example:
        >>> image_key("/data/parts/train/good/000.png")
        'train/good/000.png'
    """
    return "/".join(PurePath(path).parts[-3:])


def gets_defect(seed: int, probability: float) -> bool:
    """Return whether an image gets a defect.

    Only the seed of its draw decides, so the seed in a sample's provenance gives the same answer again.

    Args:
        seed: Seed of the image's draw.
        probability: The probability, in [0, 1].
    """
    return RandomStream(hash64(seed, "chosen")).unit() < probability


class RandomStream:
    """A stream of numbers drawn from one seed, as Python floats.

    Parameters are scalars: drawing them in Python keeps them independent of the batch they end up in, and costs less
    than a chain of one-element tensor operations.

    Args:
        seed: Seed of the stream.

    Example:
        >>> RandomStream(7).uniform(2.0, 3.0) == RandomStream(7).uniform(2.0, 3.0)
        True
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._values: list[float] = []

    def unit(self) -> float:
        """Draw from [0, 1)."""
        if not self._values:
            self._values = torch.rand(_BLOCK, generator=self._generator, dtype=torch.float64).tolist()
        return self._values.pop()

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * self.unit()

    def skewed(self, low: float, high: float) -> float:
        """Draw from [low, high) with density falling towards ``high``: most defects are small."""
        return low + (high - low) * self.unit() ** 2

    def log_uniform(self, low: float, high: float) -> float:
        """Draw from [low, high), 0 < low <= high, with a uniform logarithm."""
        return low * (high / low) ** self.unit()

    def integer(self, low: int, high: int) -> int:
        """Draw an integer from [low, high], both included."""
        return min(high, low + int((high - low + 1) * self.unit()))

    def sign(self) -> float:
        """Draw -1 or 1."""
        return 1.0 if self.unit() < 0.5 else -1.0

    def choice(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Draw one of ``options``, evenly or by (not necessarily normalised) ``weights``."""
        if weights is None:
            return options[self.integer(0, len(options) - 1)]
        threshold = self.unit() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            threshold -= weight
            if threshold < 0:
                return option
        return options[-1]

    def noise_seed(self) -> float:
        """Draw a seed for a procedural noise field: an integer below 2**24, exact as float32."""
        return float(self.integer(0, 2**24 - 1))
