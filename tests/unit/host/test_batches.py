from __future__ import annotations

import torch
from anomalib.data import ImageBatch

from anomalib_synth.functional.field_of_view import CoverageMask
from anomalib_synth.host.batches import set_unchecked


def test_type_of_a_mask_is_kept_when_it_is_set_unchecked() -> None:
    batch = ImageBatch(image=torch.zeros(1, 3, 4, 4))
    batch.gt_mask = CoverageMask(torch.ones(1, 4, 4, dtype=torch.bool))
    assert type(batch.gt_mask) is not CoverageMask
    set_unchecked(batch, "gt_mask", CoverageMask(torch.ones(1, 4, 4, dtype=torch.bool)))
    assert type(batch.gt_mask) is CoverageMask
