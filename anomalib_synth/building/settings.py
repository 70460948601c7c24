"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth.building.candidates import MODELS, order
from anomalib_synth.building.exporting import KINDS
from anomalib_synth.calibration.run import check_targets

if TYPE_CHECKING:
    from pathlib import Path

STRENGTHS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # at which recall is measured


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """See :func:`anomalib_synth.commands.build.build`.

    Raises:
        ValueError: If a value is out of its range.
    """

    normals: Path
    out: Path
    defects: Path | None = None
    marks: Path | None = None
    models: tuple[str, ...] = MODELS
    minutes: float = 10.0
    false_alarm_rate: float = 0.05
    min_recall: float = 0.5
    exports: tuple[str, ...] = KINDS
    generator: dict[str, Any]
    accelerator: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate."""
        check_targets(self.false_alarm_rate, self.min_recall)
        if not self.minutes > 0:
            msg = f"`minutes` must be > 0, got {self.minutes}."
            raise ValueError(msg)
        unknown = [kind for kind in self.exports if kind not in KINDS]
        if unknown:
            msg = f"`exports` must name some of {', '.join(KINDS)}, got {unknown}."
            raise ValueError(msg)
        if self.marks is not None and self.defects is None:
            msg = "`marks` say where `defects` are. Name those too, or leave `marks` out."
            raise ValueError(msg)
        object.__setattr__(self, "models", tuple(order(self.models)))
        for argument, folder in (("normals", self.normals), ("defects", self.defects)):
            if folder is not None and self.out.resolve().is_relative_to(folder.resolve()):
                msg = f"`out` must lie outside `{argument}`, got {str(self.out)!r} inside {str(folder)!r}."
                raise ValueError(msg)
