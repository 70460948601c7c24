"""Generators that draw with other generators."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from anomalib_synth.generators.base import AnomalyGenerator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.prepared import PreparedNormals


class WrappingGenerator(AnomalyGenerator):
    """Base of generators that do something with the samples of other generators.

    The wrapped generators propose, check and redraw by themselves. They also hold the prepared normals, and they are
    asked for the files and real defects that samples depend on. A call may ask for anything that one of them can use;
    :meth:`draw` passes it on with ``condition.take(rows).to_arguments()``.

    Args:
        seed: Base seed, used when a call names no seeds.
    """

    @property
    @abstractmethod
    def wrapped(self) -> Sequence[AnomalyGenerator]:
        """The generators that it wraps, at least one."""

    def can_use(self, condition: Condition) -> bool:
        """Return whether one of the generators can use everything that the condition asks for."""
        return any(generator.can_use(condition) for generator in self.wrapped)

    def walk(self) -> Iterator[AnomalyGenerator]:
        """Yield this generator, and those it draws with."""
        yield self
        for generator in self.wrapped:
            yield from generator.walk()

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides images and weights: those of the wrapped generators."""
        return [file for generator in self.wrapped for file in generator.files]

    @property
    def files_digest(self) -> str:
        """Digest of what the generators read."""
        return self.wrapped[0].files_digest if len(self.wrapped) == 1 else super().files_digest

    @property
    def defect_images(self) -> list[Path]:
        """Images of real defects that the generators' samples show."""
        return [image for generator in self.wrapped for image in generator.defect_images]

    @property
    def defect_digests(self) -> dict[str, str]:
        """The path of each of :attr:`defect_images`, by the digest of what it shows."""
        return {digest: file for generator in self.wrapped for digest, file in generator.defect_digests.items()}

    @property
    def normal_digests(self) -> set[str]:
        """Digests of the wrapped generators' own normals that samples show."""
        return set().union(*(generator.normal_digests for generator in self.wrapped))

    def leave_normals_out(self, digests: Collection[str]) -> int:
        """Stop showing samples of some normals; see :meth:`AnomalyGenerator.leave_normals_out`."""
        return sum(generator.leave_normals_out(digests) for generator in self.wrapped)

    @property
    def prepared(self) -> PreparedNormals | None:
        """The normals that the generators were prepared with, None until all of them are."""
        found = [generator.prepared for generator in self.wrapped]
        return None if any(each is None for each in found) else found[0]

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Share measured normals with the generators."""
        for generator in self.wrapped:
            generator.use_prepared(prepared)


def check_generator(name: str, value: object) -> None:
    """Refuse a value that is not a generator.

    Raises:
        TypeError: If it is not one.
    """
    if not isinstance(value, AnomalyGenerator):
        msg = f"`{name}` must be a generator of `anomalib_synth.generators`, got {type(value).__name__}."
        raise TypeError(msg)
