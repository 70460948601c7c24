"""The errors of a store."""

from __future__ import annotations


class StoreError(ValueError):
    """A store that cannot be opened, read or written; the message names the file and what to do."""


class OutdatedDecisionError(StoreError):
    """Somebody has decided about samples since they were seen; nothing was written.

    Attributes:
        samples: Ids of these samples.
    """

    def __init__(self, samples: list[str]) -> None:
        self.samples = samples
        what = "this sample" if len(samples) == 1 else f"{len(samples)} of these samples"
        super().__init__(
            f"Somebody else has decided about {what} meanwhile, so nothing was written. Look again, then decide."
        )
