"""Plans which models fit into the time and how long each trains, from the speeds of this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from anomalib_synth.building.candidates import BATCH, CORESET, LABELS, LEARNS, SIDE, STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.building.speeds import Speeds

_LEAST_STEPS, _LEAST_CORESET = 200, 0.001
_FEWEST_STEPS = 50  # if even the least steps do not fit, but the model is the first that is wanted
_FIRST = 800 * 2 // BATCH  # steps in which DiscriminativePadim draws its 800 defects; later steps repeat them
_PATCHES = (SIDE // 8) ** 2  # of an image, in PatchCore's memory
_FIXED = {"export": 45.0, "report": 2.0}  # seconds
_SHARE = {"choose": 0.12, "calibrate": 0.18}  # of the time
_MARGIN = 1.15  # factor on the expected seconds of training


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build will do.

    Args:
        seconds: Expected seconds of each step of the build.
        steps: Training steps of DiscriminativePadim.
        coreset: Share of the patches that PatchCore keeps, in (0, 1].
        left_out: For each model that is not trained, the reason.
        per_choice: Drawn defects of each family on which the models are compared.
        per_cell: Drawn defects of each family and strength on which recall is measured.
        megabytes: Disk that the whole build takes, in MiB.
        slow: How many times longer DiscriminativePadim's first steps take, as they draw defects.
    """

    seconds: dict[str, float]
    steps: int = STEPS
    coreset: float = CORESET
    left_out: dict[str, str] = field(default_factory=dict)
    per_choice: int = 8
    per_cell: int = 8
    megabytes: float = 0.0
    slow: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def weigh(self, share: float) -> float:
        """Return the share of DiscriminativePadim's training time after a share of its steps, both in [0, 1]."""
        done, first = share * self.steps, min(_FIRST, self.steps)
        whole = first * self.slow + self.steps - first
        return (min(done, first) * self.slow + max(0.0, done - first)) / whole


def make_plan(
    speeds: Speeds,
    models: Sequence[str],
    *,
    minutes: float,
    train: int,
    validation: int,
    calibration: int,
    families: int,
    strengths: int,
    exports: bool,
    spent: float = 0.0,
) -> BuildPlan:
    """Divide the time: PaDiM first, then up to 800 steps of DiscriminativePadim, then PatchCore with what is left.

    A model that does not fit is left out, with the reason. The first wanted model is trained however long it takes.

    Args:
        speeds: Measured speeds.
        models: Wanted models, in order of preference.
        minutes: Minutes for the whole build.
        train: Number of training images.
        validation: Number of images on which the models are compared.
        calibration: Number of images for the threshold.
        families: Number of families of defects.
        strengths: Number of strengths at which recall is measured.
        exports: Whether the chosen model is exported.
        spent: Seconds that have passed already.
    """
    total = 60 * minutes
    per_defect = speeds.draw + speeds.score
    per_choice = _count(_SHARE["choose"] * total / (len(models) * families * per_defect), 4, 12)
    per_cell = _count(_SHARE["calibrate"] * total / (strengths * families * per_defect), 4, 20)
    seconds = {
        "choose": len(models) * (families * per_choice * per_defect + validation * speeds.score + 2),
        "calibrate": strengths * families * per_cell * per_defect
        + 2 * calibration * speeds.score
        + 5
        + families * 2 * per_cell * speeds.draw,  # drawn once more for pictures
        "export": _FIXED["export"] if exports else 1.0,
        "report": _FIXED["report"],
    }
    plan = BuildPlan(seconds=seconds, per_choice=per_choice, per_cell=per_cell, megabytes=0.0)
    left = (total - spent - sum(seconds.values())) / _MARGIN
    reserve = 0.0
    if "patchcore" in models:  # time for the smallest coreset of use
        reserve = _fit_in("patchcore", speeds, plan, left=0.0, train=train, drawn=validation)[0]
    for name in sorted(models, key=("padim", LEARNS, "patchcore").index):  # the cheapest first
        kept = reserve if name == LEARNS and left > 2 * reserve else 0.0
        needed, plan = _fit_in(name, speeds, plan, left=left - kept, train=train, drawn=validation)
        if needed > left and name != models[0]:
            left_out = {
                **plan.left_out,
                name: f"{LABELS[name]} takes {needed:.0f} s, and {max(left, 0):.0f} s are left",
            }
            plan = replace(plan, left_out=left_out)
            continue
        if needed > left and name == LEARNS:
            needed -= (plan.steps - _FEWEST_STEPS) * speeds.new_step
            plan = replace(plan, steps=_FEWEST_STEPS)
        plan = replace(plan, seconds={f"train {name}": needed * _MARGIN, **plan.seconds})
        left -= needed
    trained = len(models) - len(plan.left_out)
    return replace(plan, megabytes=(trained + 3) * speeds.megabytes)


def _fit_in(
    name: str, speeds: Speeds, plan: BuildPlan, *, left: float, train: int, drawn: int
) -> tuple[float, BuildPlan]:
    """Return the seconds that a model takes, and the plan with as much training of it as there is time for."""
    base = 4 + train * speeds.image + drawn * (speeds.image + speeds.draw)
    if name == "padim":
        return base, plan
    if name == "patchcore":
        patches = train * _PATCHES
        full = patches * patches * speeds.patch  # seconds for a coreset of all patches
        ratio = min(CORESET, max((left - base) / full, _LEAST_CORESET))
        return base + ratio * full, replace(plan, coreset=round(ratio, 5))
    fixed = 5 + train * speeds.heads_image + drawn * (speeds.score + speeds.draw)
    new = _FIRST
    rest = (left - fixed - new * speeds.new_step) / max(speeds.old_step, 1e-6)
    steps = min(STEPS, max(new + int(rest), _LEAST_STEPS)) if rest > 0 else _LEAST_STEPS
    needed = fixed + min(steps, new) * speeds.new_step + max(0, steps - new) * speeds.old_step
    return needed, replace(plan, steps=steps, slow=speeds.new_step / max(speeds.old_step, 1e-6))


def _count(number: float, least: int, most: int) -> int:
    return max(least, min(most, int(number)))
