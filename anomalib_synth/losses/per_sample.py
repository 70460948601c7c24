"""The batch losses of anomalib's models, split into what each sample contributes.

Every function here takes a model's own loss module, for its settings, and the arguments of that module, and returns the
contribution of each row: the mean over the rows is what the module returns, up to rounding. Where a loss averages over
some pixels of the whole batch, a row's contribution is the sum over its pixels, times rows / pixels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.dsr.loss import DsrThirdStageLoss
    from anomalib.models.image.supersimplenet.loss import SSNLoss
    from anomalib.models.image.uninet.components import UniNetLoss


def split_elementwise(loss: nn.Module, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Split a loss that averages over all elements, such as ``nn.MSELoss`` or ``nn.BCEWithLogitsLoss``."""
    return _mean_of_rows(_unreduced(loss)(prediction, target))


def split_draem(
    loss: DraemLoss,
    input_image: torch.Tensor,
    reconstruction: torch.Tensor,
    anomaly_mask: torch.Tensor,
    prediction: torch.Tensor,
) -> torch.Tensor:
    """Split DRAEM's loss: squared error, structural similarity and focal loss."""
    squared = split_elementwise(loss.l2_loss, reconstruction, input_image)
    similarity = split_elementwise(loss.ssim_loss, reconstruction, input_image)
    return squared + 2 * similarity + split_elementwise(loss.focal_loss, prediction, anomaly_mask.squeeze(1).long())


def split_dsr(loss: DsrThirdStageLoss, pred_mask: torch.Tensor, true_mask: torch.Tensor) -> torch.Tensor:
    """Split the focal loss with which DSR's up-sampling module trains."""
    return split_elementwise(loss.focal_loss, pred_mask, true_mask.squeeze(1).long())


def split_supersimplenet(
    loss: SSNLoss,
    pred_map: torch.Tensor,
    pred_score: torch.Tensor,
    target_mask: torch.Tensor,
    target_label: torch.Tensor,
) -> torch.Tensor:
    """Split SuperSimpleNet's loss; its truncated L1 term averages over the normal and the anomalous pixels apart."""
    focal = _mean_of_rows(loss.focal_loss(pred_map, target_mask, reduction="none"))
    truncated = _mean_where(torch.clip(pred_map + loss.th, min=0), target_mask == 0)
    truncated = truncated + _mean_where(torch.clip(-pred_map + loss.th, min=0), target_mask > 0)
    return focal + truncated + _mean_of_rows(loss.focal_loss(pred_score, target_label, reduction="none"))


def split_uninet(
    loss: UniNetLoss,
    student_features: list[torch.Tensor],
    teacher_features: list[torch.Tensor],
    margin: int = 1,
    mask: torch.Tensor | None = None,
    stop_gradient: bool = False,
) -> torch.Tensor:
    """Split UniNet's loss.

    Its terms over normal and over abnormal pixels carry over from one scale to the next where the next has none of
    them; so they do here.

    Raises:
        ValueError: If the first scale has no normal pixel, where UniNet's own loss fails too.
    """
    total = torch.zeros(())
    abnormal_term, normal_terms = torch.zeros(()), None
    for student, teacher in zip(student_features, teacher_features, strict=True):
        # (B, H*W, C), of unit length
        student_rows, teacher_rows = (
            F.normalize(features.flatten(2).transpose(1, 2), p=2, dim=2)
            for features in (student, teacher.detach() if stop_gradient else teacher)
        )
        cosine = _mean_of_rows(1 - F.cosine_similarity(student_rows, teacher_rows, dim=2))
        diagonal = _matching_share(student_rows, teacher_rows, loss.temperature)
        normal, abnormal = _pixels_of(mask, diagonal, student.shape[-2:])
        if bool(normal.any()):
            contrast = _mean_where(-torch.log(diagonal + 1e-8), normal)
            normal_terms = contrast * (1 - loss.lambda_weight) + _mean_where(F.relu(margin - diagonal), normal)
        if bool(abnormal.any()):
            abnormal_term = _mean_where(F.relu(diagonal - margin / 2), abnormal)
        if normal_terms is None:
            msg = (
                "UniNet's loss needs a normal pixel in every batch, but the masks cover all images of this one. Lower "
                "the generator's area or the probability of SynthesisCallback."
            )
            raise ValueError(msg)
        total = total + cosine * loss.lambda_weight + normal_terms + abnormal_term
    return total


def keep_samples(loss: nn.Module, losses: torch.Tensor) -> torch.Tensor:
    """Return (B,) losses that a model of our own hands to its ``sample_reduction`` as they are."""
    del loss
    if losses.ndim != 1:
        msg = f"`sample_reduction` must be given the loss of each sample, (B,), got {tuple(losses.shape)}."
        raise ValueError(msg)
    return losses


SPLITS: dict[str, Callable[..., torch.Tensor]] = {
    "draem": split_draem,
    "dsr": split_dsr,
    "supersimplenet": split_supersimplenet,
    "uninet": split_uninet,
    "elementwise": split_elementwise,
    "samples": keep_samples,
}


def _unreduced(loss: nn.Module) -> nn.Module:
    """Return a loss with the same settings that gives one value an element."""
    loss = copy.copy(loss)
    loss.reduction = "none"
    return loss


def _mean_of_rows(values: torch.Tensor) -> torch.Tensor:
    """(B, ...) -> (B,), at least in float32: below it, sums over pixels lose their digits."""
    return values.reshape(len(values), -1).mean(1, dtype=_wide(values))


def _mean_where(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(B, ...) and (B, ...) bool -> (B,), whose mean is that of the chosen values of the batch, or 0 without any."""
    sums = torch.where(chosen, values, 0).reshape(len(values), -1).sum(1, dtype=_wide(values))
    return sums * len(values) / chosen.sum().clamp(min=1)


def _wide(values: torch.Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _matching_share(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return (B, P): the softmax similarity of each of the student's patches to the teacher's patch at its place."""
    similarity = torch.exp(torch.matmul(student, teacher.transpose(1, 2)) / temperature)
    similarity = similarity / (similarity.sum(dim=2, keepdim=True) + 1e-8)
    return torch.diagonal(similarity, dim1=1, dim2=2)


def _pixels_of(
    mask: torch.Tensor | None, diagonal: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, P) bool each: the normal and the abnormal patches, from masks (B, 1, H, W) or labels (B,)."""
    if mask is None:
        mask = torch.zeros_like(diagonal)
    elif mask.ndim < 3:
        mask = mask.reshape(-1, 1).expand_as(diagonal)
    else:
        mask = F.interpolate(mask, size=size, mode="nearest").flatten(1)
    return mask == 0, mask == 1
