"""Starts a training from the weights of a bundle, whose vocabulary may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from anomalib_synth.models.captions import UNKNOWN

if TYPE_CHECKING:
    from anomalib_synth.models.bundle import Bundle
    from anomalib_synth.models.captions import CaptionVocabulary


@torch.no_grad()
def warm_start(start: Bundle, models: dict[str, nn.Module], vocabulary: CaptionVocabulary) -> None:
    """Load a bundle's weights into new models; words new to the bundle start with the embedding of the unknown word.

    Args:
        start: The bundle.
        models: New models, by their names in the bundle.
        vocabulary: Vocabulary of the new models.

    Raises:
        ValueError: If a model of the bundle has other sizes than the new one.
    """
    old = {word: index for index, word in enumerate(start.vocabulary.words, start=UNKNOWN + 1)}
    for name, model in models.items():
        known = (start.token_model() if name == "token_model" else start.dual_encoder()).state_dict()
        own = model.state_dict()
        for key in (f"{part}.weight" for part, module in model.named_modules() if isinstance(module, nn.Embedding)):
            if len(own[key]) != len(vocabulary):  # the embedding of scales, not of words
                continue
            taken = [old.get(word, UNKNOWN) for word in vocabulary.words]
            known[key] = known[key][[*range(UNKNOWN + 1), *taken]]
        first = "context.first.weight"
        if name == "token_model" and start.token_model().config["channels"] == model.config["channels"]:
            known[first] = _see_mask_in_cells(known[first], own[first].shape[1], model.config["channels"])
        misfits = sorted(key for key in own if key not in known or known[key].shape != own[key].shape)
        if misfits:
            msg = (
                f"`start` must be a bundle whose {name} is as large as the settings say, got another shape of "
                f"{misfits[0]!r} in {str(start.path)!r}. Fit without it, or with its settings."
            )
            raise ValueError(msg)
        model.load_state_dict(known)


def _see_mask_in_cells(weight: torch.Tensor, channels: int, latents: int) -> torch.Tensor:
    """Convert the first kernel to a mask with another number of cells: each cell gets an equal share of the weight."""
    z, mask = weight.split([latents, weight.shape[1] - latents], 1)
    cells = channels - latents
    return torch.cat([z, mask.mean(1, keepdim=True).expand(-1, cells, -1, -1) * (mask.shape[1] / cells)], 1)
