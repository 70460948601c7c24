"""The checks of a sample: did the image change visibly, where the mask says so, and on the part?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from anomalib_synth.functional.masks import box_blur, exact_mean

_LEVEL = 1 / 255
_MEASURED = ("area", "visibility", "agreement", "foreground")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The outcome of the checks for N windows.

    Shape:
        - ``mask``: (N, 1, h, w) float32 in {0, 1}
        - ``quality``: (N,) float32 in [0, 1], agreement times v / (v + 1) with the visibility v
        - ``measured``: N times ``area`` (share of the image's pixels), ``visibility`` (mean change in the mask, divided
          by the visibility floor), ``agreement`` (of the intended area that lies on the part, the share that changed)
          and ``foreground`` (share of the intended area that lies on the part)
        - ``reason``: N strings, ``""`` where the window passed
    """

    mask: torch.Tensor
    quality: torch.Tensor
    measured: list[dict[str, float]]
    reason: list[str]


@dataclass(frozen=True, kw_only=True)
class SampleChecks:
    """Limits that a synthetic sample must keep; a draw that breaks one is redrawn.

    Args:
        min_visibility: Least mean change inside the mask, as a multiple of the visibility floor, which is the local
            noise of the normals (their mean absolute high-pass response) plus two grey levels.
        min_agreement: Least share, in [0, 1], that must change visibly of the intended area on the part.
        min_foreground: Least share, in [0, 1], of the intended area that must lie on the part.
        area: Least and largest share of the image's pixels in the mask, 0 <= min < max <= 1.

    Raises:
        ValueError: If a limit is out of its range.
    """

    min_visibility: float = 1.0
    min_agreement: float = 0.2
    min_foreground: float = 0.6
    area: tuple[float, float] = (1e-4, 0.6)

    def __post_init__(self) -> None:
        """Validate the limits."""
        if not self.min_visibility >= 0:
            msg = f"`min_visibility` must be >= 0, got {self.min_visibility}. Use 0 to switch the check off."
            raise ValueError(msg)
        for name in ("min_agreement", "min_foreground"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"`{name}` must be in [0, 1], got {getattr(self, name)}. Use 0 to switch the check off."
                raise ValueError(msg)
        if len(self.area) != 2 or not 0 <= self.area[0] < self.area[1] <= 1:
            msg = f"`area` must satisfy 0 <= min < max <= 1, got {self.area}. It is a share of the image's pixels."
            raise ValueError(msg)

    def __call__(
        self,
        source: torch.Tensor,
        changed: torch.Tensor,
        support: torch.Tensor,
        *,
        foreground: torch.Tensor,
        noise: torch.Tensor,
        image_pixels: int,
    ) -> CheckResult:
        """Measure and judge N windows.

        The visibility floor is the noise plus two grey levels. The mask is where, inside ``support``, the change
        averaged over 3 x 3 pixels reaches half of ``min_visibility`` times the floor, and at least one grey level.

        Args:
            source: (N, C, h, w) windows before.
            changed: (N, C, h, w) windows after.
            support: (N, 1, h, w) bool, where the defect was meant to be.
            foreground: (N, 1, h, w) in {0, 1}, where the part is.
            noise: (N,) local noise of normals around each window, in image units.
            image_pixels: Pixels of a whole image.

        Returns:
            The measurements, the mask and a reason for each window that failed.
        """
        floor = noise + 2 * _LEVEL
        change = (changed - source).abs_().amax(1, keepdim=True)
        level = (0.5 * self.min_visibility * floor).clamp_min(_LEVEL).view(-1, 1, 1, 1)
        inside = support & (box_blur(change) >= level) & (change > 0)
        mask = inside.float()
        counted = torch.stack([inside, support, support & (foreground > 0)]).flatten(2).sum(2, dtype=torch.int32)
        pixels, meant, on_part = counted.float().unbind(0)
        area = pixels / image_pixels
        visibility = exact_mean(change, mask, count=pixels) / floor
        agreement = (pixels / torch.where(on_part > 0, on_part, meant).clamp_min(1)).clamp(max=1)
        on_part = on_part / meant.clamp_min(1)
        quality = agreement * (visibility / (visibility + 1))
        columns = torch.stack([area, visibility, agreement, on_part]).double().cpu()
        measured = [dict(zip(_MEASURED, row, strict=True)) for row in columns.T.tolist()]
        return CheckResult(
            mask=mask, quality=quality, measured=measured, reason=[self.judge(**row) for row in measured]
        )

    def judge(self, area: float, visibility: float, agreement: float, foreground: float) -> str:
        """Return why a window with these measurements fails, or ``""``."""
        low, high = self.area
        if area == 0:
            return "nothing changed visibly"
        if not low <= area <= high:
            return f"mask area {area:.2g} outside [{low:g}, {high:g}]"
        if visibility < self.min_visibility:
            return f"visibility {visibility:.2f} below {self.min_visibility:g}"
        if agreement < self.min_agreement:
            return f"mask agreement {agreement:.2f} below {self.min_agreement:g}"
        if foreground < self.min_foreground:
            return f"foreground share {foreground:.2f} below {self.min_foreground:g}"
        return ""
