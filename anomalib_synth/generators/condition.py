"""What a call asks for besides its images: where the defects should lie, and what they should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth.generators.validation import check_masks, check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

USERS = {
    "masks": "every generator that draws can",
    "prompts": "AutoregressiveGenerator and DiffusionGenerator can",
    "prompts_to": "AutoregressiveGenerator can",
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What one call asks for; a field is None where nothing is asked.

    It is passed from the call down to the proposal as an argument, so that calls from several threads do not mix.

    Args:
        masks: (B, 1, H, W), non-zero where the defects may lie.
        prompts: B texts, what to draw.
        prompts_to: B texts to move to from ``prompts``.
        mix: How far to move, in [0, 1].
        names: Names of the B images, for a generator with a folder of regions; others ignore them.
    """

    masks: torch.Tensor | None = None
    prompts: Sequence[str] | None = None
    prompts_to: Sequence[str] | None = None
    mix: float = 0.0
    names: Sequence[str] | None = None

    @classmethod
    def check(
        cls,
        images: torch.Tensor,
        *,
        masks: torch.Tensor | None = None,
        prompts: Sequence[str] | None = None,
        prompts_to: Sequence[str] | None = None,
        mix: float = 0.0,
        names: Sequence[str] | None = None,
    ) -> Condition:
        """Check what a call asks for against its images, (B, C, H, W), and return it.

        Raises:
            ValueError: If an argument has the wrong number, size or range, or needs another one.
        """
        check_masks(masks, images)
        texts = check_texts("prompts", prompts, len(images))
        texts_to = check_texts("prompts_to", prompts_to, len(images))
        named = check_texts("names", names, len(images))
        if not 0 <= mix <= 1 or (mix and texts_to is None) or (texts_to is not None and texts is None):
            msg = (
                "`mix` must be in [0, 1] and 0 without `prompts_to`, and `prompts_to` needs `prompts`; got "
                f"{mix} with `prompts_to` {prompts_to!r} and `prompts` {prompts!r}."
            )
            raise ValueError(msg)
        return cls(masks=masks, prompts=texts, prompts_to=texts_to, mix=float(mix), names=named)

    @property
    def asked(self) -> frozenset[str]:
        """The names of the arguments that ask for something: any of ``masks``, ``prompts`` and ``prompts_to``."""
        return frozenset(name for name in USERS if getattr(self, name) is not None)

    def take(self, rows: Sequence[int]) -> Condition:
        """Return the condition of some rows of the batch."""
        return Condition(
            masks=None if self.masks is None else self.masks[list(rows)],
            prompts=None if self.prompts is None else [self.prompts[row] for row in rows],
            prompts_to=None if self.prompts_to is None else [self.prompts_to[row] for row in rows],
            mix=self.mix,
            names=None if self.names is None else [self.names[row] for row in rows],
        )

    def to_arguments(self) -> dict[str, Any]:
        """Return the condition as the arguments of a call, without those that are None."""
        arguments = {name: getattr(self, name) for name in USERS if name in self.asked}
        arguments |= {} if self.names is None else {"names": self.names}
        return arguments | ({"mix": self.mix} if self.mix else {})

    def describe(self, row: int) -> dict[str, Any]:
        """Return the texts, the mix and the name of a row as plain data, for its provenance."""
        texts = {"prompt": self.prompts, "prompt_to": self.prompts_to, "name": self.names}
        found: dict[str, Any] = {name: given[row] for name, given in texts.items() if given is not None}
        return found | ({"mix": self.mix} if self.mix else {})
