"""Proposed defects, each in a window of its image, and how windows are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from anomalib_synth.generators.checks import SampleChecks


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """N windows of one size, each with a proposed defect, before the checks.

    The output is ``source + alpha * (target - source)`` inside the mask, and the source elsewhere.

    Shape:
        - ``rows``: N indices into the batch; ``top``, ``left``: N corners of the windows, in pixels
        - ``target``: (N, C, h, w) float32 in [0, 1], the window with the defect at full strength
        - ``alpha``: (N, 1, h, w) float32 in [0, 1], coverage times strength
        - ``support``: (N, 1, h, w) bool, where the defect is meant to be, whatever its strength
        - ``families``, ``captions``, ``params``: one entry for each window; ``prompts`` too, None without prompts
        - ``checks``: the limits that these windows must keep; None takes the generator's
    """

    rows: list[int]
    top: list[int]
    left: list[int]
    target: torch.Tensor
    alpha: torch.Tensor
    support: torch.Tensor
    families: list[str]
    captions: list[str]
    params: list[dict[str, float]]
    prompts: list[str] | None = None
    checks: SampleChecks | None = None


def crop(images: torch.Tensor, rows: list[int], top: list[int], left: list[int], h: int, w: int) -> torch.Tensor:
    """Cut one h x w window out of each row: (B, C, H, W) -> (N, C, h, w); a view if there is only one row."""
    cut = [images[row, :, t : t + h, s : s + w] for row, t, s in zip(rows, top, left, strict=True)]
    return cut[0].unsqueeze(0) if len(cut) == 1 else torch.stack(cut)


def crop_grid(
    grid: torch.Tensor, rows: list[int], top: list[int], left: list[int], window: tuple[int, int], size: tuple[int, int]
) -> torch.Tensor:
    """Cut windows out of a map on a coarser grid, by nearest neighbour: (B, 1, gh, gw) -> (N, 1, h, w) float32."""
    grid_h, grid_w = grid.shape[-2:]
    cut = []
    for row, t, s in zip(rows, top, left, strict=True):
        y = torch.arange(t, t + window[0], device=grid.device) * grid_h // size[0]
        x = torch.arange(s, s + window[1], device=grid.device) * grid_w // size[1]
        cut.append(grid[row].index_select(1, y).index_select(2, x))
    return torch.stack(cut).float()
