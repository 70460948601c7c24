"""The map of a trained detector, from which the marking page proposes outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from anomalib.post_processing import PostProcessor
from torch.nn import functional as F

from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.functional.field_of_view import find_view
from anomalib_synth.images import WhitePoint, to_tensor
from anomalib_synth.learning.versions import DetectorFolder

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from anomalib.models import AnomalibModule


class DetectorMap:
    """The anomaly map of a detector, its pixel threshold at 0.5.

    Args:
        folder: Folder of `anomalib train`, `build`, `calibrate` or `learn`, or a checkpoint.

    Attributes:
        white_point: White by which it was shown images of more than 8 bits, without values if none was kept.

    Raises:
        ValueError: If it holds no detector, or one whose map is not normalised.
    """

    def __init__(self, folder: Path) -> None:
        detector = DetectorFolder(folder)
        checkpoint = read_checkpoint(detector.current)
        module, _ = load_model(str(detector.config), detector.current, checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        self._use(module)
        self.white_point = read_kept_white_point(detector.current, checkpoint)

    @classmethod
    def of(cls, module: AnomalibModule) -> DetectorMap:
        """Return the map of a detector that is loaded.

        Raises:
            ValueError: If its map is not normalised.
        """
        made = cls.__new__(cls)
        made._use(module)
        return made

    def _use(self, module: AnomalibModule) -> None:
        post = module.post_processor
        is_known = isinstance(post, PostProcessor) and not bool(torch.isnan(post.pixel_max - post.pixel_min))
        if not is_known or not post.enable_normalization:
            msg = (
                f"`detector` must give a map from 0 to 1 with its threshold at 0.5, but the post-processor of this "
                f"{type(module).__name__} does not normalise. Train it with `enable_normalization: true` and a "
                "validation set, or leave `detector` out and give `normals`."
            )
            raise ValueError(msg)
        self._module = module.eval()
        self.white_point = WhitePoint()
        self._views: dict[tuple[int, int], torch.Tensor] = {}

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> np.ndarray:
        """Return the map (H, W) float32 in [0, 1] of an image (H, W, 3) uint8, 0 where the detector does not look.

        Raises:
            ValueError: If the detector gives no map, or its transform does more than move, scale, turn and crop.
        """
        found = self._module(to_tensor(image)[None]).anomaly_map
        if found is None:
            msg = f"`detector` must say where a defect is, but {type(self._module).__name__} gives no map."
            raise ValueError(msg)
        levels = found.reshape(1, 1, *found.shape[-2:]).float().clamp(0, 1).cpu()
        size = image.shape[0], image.shape[1]
        if size not in self._views:
            pre = self._module.pre_processor
            self._views = {size: find_view(pre or torch.nn.Identity(), size)}
        grid = F.affine_grid(self._views[size][None], [1, 1, *size], align_corners=False)
        inside = (grid.abs() <= 1).all(-1)
        placed = F.grid_sample(levels, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return (placed[0, 0] * inside[0]).numpy()
