"""The heads score cells, and repeat the border."""

from __future__ import annotations

import torch

from anomalib_synth.detectors.discriminative_padim.heads import Head


def test_head_scores_cells_and_repeats_the_border() -> None:
    head = Head(6, 8).eval()
    logits = head(torch.ones(2, 6, 5, 7))
    assert logits.shape == (2, 1, 5, 7)
    torch.testing.assert_close(logits, logits[:, :, :1, :1].expand_as(logits))  # zeros around would show
