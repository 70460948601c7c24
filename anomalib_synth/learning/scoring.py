"""The scores of a detector on examples, from their kept features."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel
    from anomalib_synth.learning.example_memory import ExampleMemory
    from anomalib_synth.learning.examples import Example

_CHUNK = 8


class Score(NamedTuple):
    """Raw image score, and the largest value of the raw map."""

    image: float
    peak: float


@torch.no_grad()
def score_examples(
    model: DiscriminativePadimModel,
    memory: ExampleMemory,
    examples: Sequence[Example],
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Score]:
    """Return the scores of examples by the detector's current heads, in their order."""
    model.branches.eval()
    scores: list[Score] = []
    count = len(memory.normals())
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        views = memory.features.views([example.to_request() for example in chunk], count=count)
        prediction = model.predict_from([tuple(view) for view in views])
        peaks = prediction.anomaly_map.amax((1, 2, 3))
        scores += [Score(*pair) for pair in zip(prediction.pred_score.tolist(), peaks.tolist(), strict=True)]
        advance(len(chunk))
    return scores
