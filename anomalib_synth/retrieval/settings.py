"""How samples are compared with real normals."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anomalib_synth.registration import BACKBONE_NAME


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """How samples are compared with real normals.

    Args:
        embedder: What turns windows into vectors, see :func:`anomalib_synth.retrieval.load_embedder`.
        context: Side of a window over the longer side of the edit's bounding box, >= 1. Windows come in sizes that are
            √2 apart, so they are up to that much larger.
        window_share: Side of every window as a share of the image's shorter side, in (0, 1], whatever the edit; None
            sizes windows by the edit. In a window much larger than itself a bad edit is not seen.
        top_k: Number of nearest windows whose cosines are averaged, >= 1.
        quantile: Share of the normals' windows that may be less similar to other normals than a sample must be, in
            (0, 1). It sets the lower bound.
        upper_quantile: Share of the normals' windows that must be less similar than a sample may be, in (0, 1); None:
            no upper bound.
        reference: Contrast, in (0, 1], of the plain ellipses and lines that are drawn in windows of normals to see how
            much similarity a mild defect takes from them: a sample may take as much as 80 % of these do. None: no
            bound on what it takes.
        min_visibility: Least change in the mask, as a multiple of the source's local noise (mean absolute high-pass
            response there) plus two grey levels, >= 0; 0 switches the check off. The change is smoothed over 3 x 3
            pixels first, which leaves a third of what is mere noise. The floor is raised to what a null edit of the
            normals reaches (half the resolution, a quarter of that of colours: what a codec or an autoencoder does to
            an image when nothing is asked for), but for a share of ``quantile`` of their windows.
        max_normals: Largest number of normals to compare with, >= 2.
        max_windows: Largest number of their windows of each size, >= 2; but at least one of each normal.

    Raises:
        ValueError: If an argument is out of its range.
    """

    embedder: str = f"timm:{BACKBONE_NAME}"
    context: float = 1.2
    window_share: float | None = None
    top_k: int = 5
    quantile: float = 0.01
    upper_quantile: float | None = None
    reference: float | None = 0.12
    min_visibility: float = 0.6
    max_normals: int = 256
    max_windows: int = 256

    def __post_init__(self) -> None:
        """Validate the arguments."""
        rules = (
            ("context", 1 <= self.context < math.inf, ">= 1"),
            ("window_share", self.window_share is None or 0 < self.window_share <= 1, "in (0, 1] or None"),
            ("top_k", self.top_k >= 1, ">= 1"),
            ("quantile", 0 < self.quantile < 1, "in (0, 1)"),
            ("upper_quantile", self.upper_quantile is None or 0 < self.upper_quantile < 1, "in (0, 1) or None"),
            ("reference", self.reference is None or 0 < self.reference <= 1, "in (0, 1] or None"),
            ("min_visibility", self.min_visibility >= 0, ">= 0"),
            ("max_normals", self.max_normals >= 2, ">= 2"),
            ("max_windows", self.max_windows >= 2, ">= 2"),
        )
        for name, is_right, rule in rules:
            if not is_right:
                msg = f"`{name}` must be {rule}, got {getattr(self, name)}."
                raise ValueError(msg)
        if self.upper_quantile is not None and self.upper_quantile <= self.quantile:
            msg = f"`upper_quantile` must be > `quantile` ({self.quantile}), got {self.upper_quantile}."
            raise ValueError(msg)
        from anomalib_synth.encoders.embedders import load_embedder

        load_embedder(self.embedder)
