"""The examples that a detector is taught from: images as its heads see them, and the targets of their cells."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from anomalib_synth.detectors.discriminative_padim.targets import Targets
from anomalib_synth.detectors.discriminative_padim.training_features import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

Role = Literal["normal", "drawn", "trained_defect", "defect", "false_alarm", "good", "probe"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image.

    Args:
        role: ``normal``: a good image the detector was trained on; ``drawn``: a defect drawn on such an image;
            ``trained_defect``: a real defect it was trained with; ``defect``: a real defect that was learned;
            ``false_alarm``: a good image that was learned; ``good``: a good image that was held out; ``probe``: a
            defect drawn on a held-out image.
        name: Name in tables: its file, or the family of a drawn defect.
        key: Digest of its pixels, as the model sees them.
        behind: Digest of the training normal it was drawn on; None for none.
        targets: Targets of its cells, one pair per scale: the defective share of each cell, and the number of its box.
        certain: Whether a mask says where the defect is.
        drawn_on: File of the held-out image that a probe was drawn on.

    Shape:
        - ``targets``: (h, w) uint8 each; 255 stands for a share of 1
    """

    role: Role
    name: str
    key: bytes
    behind: bytes | None = None
    targets: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    certain: bool = True
    drawn_on: str = ""

    def to_request(self) -> Request:
        """Return the request for its kept features."""
        return Request(None, self.key, None, self.behind)

    def to_line(self) -> bytes:
        """Return a line of JSON."""
        row = {
            "role": self.role,
            "name": self.name,
            "key": self.key.hex(),
            "behind": None if self.behind is None else self.behind.hex(),
            "targets": [[_pack(each) for each in pair] for pair in self.targets],
            "certain": self.certain,
            "drawn_on": self.drawn_on,
        }
        return json.dumps(row).encode() + b"\n"

    @classmethod
    def from_line(cls, line: str, grids: Sequence[tuple[int, int]]) -> Example:
        """Return the example of a line, with its cells on these grids.

        Raises:
            ValueError: If the line is damaged, or its cells are of other grids.
        """
        row: dict[str, Any] = json.loads(line)
        try:
            if row["role"] not in get_args(Role) or not isinstance(row["name"], str):
                msg = f"no example: {line[:80]}"
                raise ValueError(msg)
            return cls(
                role=row["role"],
                name=row["name"],
                key=bytes.fromhex(row["key"]),
                behind=None if row["behind"] is None else bytes.fromhex(row["behind"]),
                targets=tuple(
                    (_unpack(cover, grid), _unpack(boxes, grid))
                    for (cover, boxes), grid in zip(row["targets"], grids, strict=True)
                )
                if row["targets"]
                else (),
                certain=bool(row["certain"]),
                drawn_on=str(row["drawn_on"]),
            )
        except (KeyError, TypeError, zlib.error) as error:
            msg = f"no example: {line[:80]}"
            raise ValueError(msg) from error


def stack_targets(examples: Sequence[Example], grids: Sequence[tuple[int, int]]) -> list[Targets]:
    """Return the targets of examples as one batch per scale; all cells of an example without targets are good."""
    stacked = []
    for level, grid in enumerate(grids):
        none = np.zeros(grid, dtype=np.uint8)
        pairs = [each.targets[level] if each.targets else (none, none) for each in examples]
        cover, boxes = (torch.from_numpy(np.stack(each))[:, None] for each in zip(*pairs, strict=True))
        stacked.append(Targets(cover.float() / 255, boxes))
    return stacked


def pack_targets(targets: Sequence[Targets]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return the targets of one image as uint8; shares are rounded up, so that a touched cell stays touched."""
    return tuple(
        (
            (each.cover[0, 0].cpu() * 255).ceil().clamp(max=255).to(torch.uint8).numpy(),
            each.boxes[0, 0].cpu().numpy(),
        )
        for each in targets
    )


def _pack(cells: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(cells).tobytes())).decode()


def _unpack(text: str, grid: tuple[int, int]) -> np.ndarray:
    size = grid[0] * grid[1]
    data = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    if len(data) != size:
        msg = f"cells of another grid than {grid[0]} x {grid[1]}"
        raise ValueError(msg)
    return np.frombuffer(data, dtype=np.uint8).reshape(grid)
