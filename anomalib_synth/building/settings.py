"""The settings of a build."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth.building.candidates import MODELS, order
from anomalib_synth.building.exporting import KINDS
from anomalib_synth.calibration.device import choose_device
from anomalib_synth.calibration.run import check_targets
from anomalib_synth.images import WhitePoint

if TYPE_CHECKING:
    from pathlib import Path

STRENGTHS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # at which recall is measured
STATE = "build.json"  # in `out`: the steps that are done
_WRITTEN = ("images", "candidates", "detector", "work", "report.html", "looks.csv")  # what else a build writes to `out`
_MOST_MINUTES = 60 * 24 * 30
_MOST_SEED = 2**32 - 1  # the largest that NumPy's global generator takes


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The arguments of :func:`anomalib_synth.commands.build.build`, which explains them.

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
    group_by: str | None = None
    exports: tuple[str, ...] = KINDS
    generator: dict[str, Any]
    bit_depth: int | None = None
    accelerator: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate."""
        check_targets(self.false_alarm_rate, self.min_recall)
        if not 0 < self.minutes <= _MOST_MINUTES:
            msg = f"`minutes` must be > 0 and at most {_MOST_MINUTES} (30 days), got {self.minutes}."
            raise ValueError(msg)
        if not 0 <= self.seed <= _MOST_SEED:
            msg = f"`seed` must be in 0..{_MOST_SEED}, got {self.seed}."
            raise ValueError(msg)
        choose_device(self.accelerator)
        if self.bit_depth is not None:
            WhitePoint.of_bit_depth(self.bit_depth)
        unknown = [kind for kind in self.exports if kind not in KINDS]
        if unknown:
            msg = f"`exports` must name some of {', '.join(KINDS)}, got {unknown}."
            raise ValueError(msg)
        if self.marks is not None and self.defects is None:
            msg = "`marks` need `defects`, whose places they show. Give `defects` too, or leave `marks` out."
            raise ValueError(msg)
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                msg = f"`group_by` must be a regular expression, got {self.group_by!r}: {error}."
                raise ValueError(msg) from error
        object.__setattr__(self, "models", tuple(order(self.models)))
        object.__setattr__(self, "exports", tuple(kind for kind in KINDS if kind in self.exports))
        self._check_folders()

    def _check_folders(self) -> None:
        """Refuse folders where the build would replace the user's files."""
        given = {"normals": self.normals, "defects": self.defects, "marks": self.marks}
        for argument, folder in given.items():
            if folder is None:
                continue
            if argument != "marks" and self.out.resolve().is_relative_to(folder.resolve()):
                msg = f"`out` must lie outside `{argument}`, got {str(self.out)!r} inside {str(folder)!r}."
                raise ValueError(msg)
            filled = next((self.out / name for name in _WRITTEN if _is_within(folder, self.out / name)), None)
            if filled is not None:
                msg = (
                    f"`{argument}` must lie outside the folders that the build fills, got {str(folder)!r} in "
                    f"{str(filled)!r}, whose files it replaces. Name another `out`."
                )
                raise ValueError(msg)
        strange = [name for name in _WRITTEN if (self.out / name).exists() or (self.out / name).is_symlink()]
        if strange and not (self.out / STATE).exists():
            msg = (
                f"`out` {str(self.out)!r} holds {strange[0]!r}, which no build wrote ({STATE} is not there) and which "
                f"this build would replace. Name another folder, or take {strange[0]!r} away."
            )
            raise ValueError(msg)


def _is_within(folder: Path, place: Path) -> bool:
    return folder.resolve().is_relative_to(place.resolve())
