"""Chooses one of the trained models, and says why."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.building.candidates import LABELS, LEARNS
from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.calibration.defect_sets import KeptImages, draw_defect_set, plan_defect_sets
from anomalib_synth.calibration.scoring import Item, Row, score_items
from anomalib_synth.calibration.training_run import read_inference
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.images import Normal, digest_image, list_images, read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anomalib_synth.building.data_folders import DataFolders

STRENGTHS = (0.3, 0.6)  # of the defects that compare models: neither invisible nor found by every model
_ENOUGH = 5  # real defects, from which on they count in the choice
_ROUNDS = 2000
_TIE = 0.005


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one model on the images on which all models are compared.

    Args:
        good: Scores of good images.
        synthetic: Scores of images with drawn defects.
        real: Scores of images with real defects.
        seconds: Seconds to score an image.
    """

    good: list[float]
    synthetic: list[float]
    real: list[float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """How one model compares with the chosen one, for the report.

    Args:
        name: The model.
        synthetic: Image AUROC on drawn defects, with its 95 % interval.
        real: The same on real defects, None if there are none.
        seconds: Seconds to score an image.
        against: By kind of defect, by how much its AUROC is above that of the chosen model, with the 95 % interval.
    """

    name: str
    synthetic: tuple[float, float, float]
    real: tuple[float, float, float] | None
    seconds: float
    against: dict[str, tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def score_candidate(
    checkpoint: Path,
    folders: DataFolders,
    generator: dict[str, Any],
    *,
    per_choice: int,
    batch_size: int = 16,
    accelerator: str = "auto",
    seed: int,
    advance: Callable[[float], None] = lambda _: None,
) -> Scores:
    """Score good images that no model was trained on, defects drawn on them, and real defects.

    The drawn defects are the same for every model.

    Args:
        checkpoint: Checkpoint of the model.
        folders: The images.
        generator: Configuration of the generator that draws the defects.
        per_choice: Number of drawn defects of each family.
        batch_size: Images per batch.
        accelerator: Device.
        seed: Seed of the defects.
        advance: Called with the share that is done, in [0, 1].
    """
    network, config = load_model(None, checkpoint, read_checkpoint(checkpoint))
    drawing = build_generator(generator)
    drawing.prepare(read_tensor(path, "normals") for path in list_images(folders.train).paths[:256])
    defect_sets = plan_defect_sets(drawing, STRENGTHS, max(1, per_choice // len(STRENGTHS)))
    files = list_images(folders.validation).paths
    normals = [Normal(path=path, name=path.name, content=digest_image(path)) for path in files]
    real = [] if folders.defects is None else list_images(folders.defects, "defects").paths
    total = len(files) + len(real) + sum(defect_set.count for defect_set in defect_sets)
    rows: list[Row] = []

    def items() -> Iterator[Item]:
        keep = KeptImages("normals", keep_bytes=2**28)
        for role, paths in (("measure", files), ("real", real)):
            for path in paths:
                rows.append(Row(role=role, path=str(path)))  # type: ignore[arg-type]
                yield Item(row=rows[-1], image=keep(path))
                advance(len(rows) / total)
        for defect_set in defect_sets:
            for row, item in draw_defect_set(defect_set, normals, keep, seed=seed):
                rows.append(row)
                if item is not None:
                    yield item
                advance(len(rows) / total)

    inference = read_inference(config) if config else None
    if inference is None:
        msg = f"{str(checkpoint)!r} must have its config.yaml above it. Remove the folder and build again."
        raise ValueError(msg)
    score_items(network, checkpoint, items(), inference=inference, batch_size=batch_size, accelerator=accelerator)
    seconds = _time_scoring(network, checkpoint, files[:batch_size], inference, batch_size, accelerator)
    by_role = {
        role: [row.score for row in rows if row.role == role and row.visible and row.in_view]
        for role in ("measure", "synthetic", "real")
    }
    return Scores(good=by_role["measure"], synthetic=by_role["synthetic"], real=by_role["real"], seconds=seconds)


def choose(scores: Mapping[str, Scores], *, learned: bool = False) -> tuple[str, str, list[CandidateResult]]:
    """Return the chosen model, the reason in words, and the comparison of each model with it.

    DiscriminativePadim has trained on defects of the same kind, so the drawn defects favour it. A model that still
    finds surely more of them is therefore better. Otherwise DiscriminativePadim is chosen, as it was the best model on
    seven categories of real defects. If it was not trained, the model that finds most drawn defects is chosen, and of
    several equal ones the fastest. If there are five or more real defects, they decide before the drawn ones.

    Args:
        scores: Scores by model, in order of preference.
        learned: Whether DiscriminativePadim has trained on other real defects.
    """
    names = list(scores)
    has_real = len(scores[names[0]].real) >= _ENOUGH
    taken, grounds = _decide(scores, has_real=has_real, learned=learned)
    standings = []
    for name in names:
        own = scores[name]
        against = {}
        if name != taken:
            against["synthetic"] = lead(own, scores[taken], "synthetic")
            if own.real:
                against["real"] = lead(own, scores[taken], "real")
        standings.append(
            CandidateResult(
                name=name,
                synthetic=auroc(own.good, own.synthetic),
                real=auroc(own.good, own.real) if own.real else None,
                seconds=own.seconds,
                against=against,
            )
        )
    return taken, grounds, standings


def _decide(scores: Mapping[str, Scores], *, has_real: bool, learned: bool) -> tuple[str, str]:
    names = list(scores)
    if len(names) == 1:
        return names[0], f"{LABELS[names[0]]} is the only model that was trained."
    kinds = (["real"] if has_real else []) + ["synthetic"]
    if LEARNS in names:
        favourite = LEARNS
        why = (
            "no other model finds surely more, and on seven categories of real defects it was the best on average "
            "(docs/results.md)"
        )
    else:
        best = max(names, key=lambda name: auroc(scores[name].good, scores[name].synthetic)[0])
        level = [name for name in names if abs(lead(scores[name], scores[best], "synthetic")[0]) < _TIE]
        favourite = min(level, key=lambda name: scores[name].seconds)
        why = "it finds the most drawn defects"
        if len(level) > 1:
            why = "it is the fastest of those that find the most drawn defects"
    for kind in kinds:
        leads = {name: lead(scores[name], scores[favourite], kind) for name in names if name != favourite}
        better = {name: each for name, each in leads.items() if each[1] > 0}
        if better:
            taken = max(better, key=lambda name: better[name][0])
            gain, low, high = better[taken]
            what = "real" if kind == "real" else "drawn"
            return taken, (
                f"{LABELS[taken]} is taken: it tells {what} defects from good images surely better than "
                f"{LABELS[favourite]}, by {100 * gain:.1f} points of image AUROC ({100 * low:.1f} to {100 * high:.1f})."
            )
    count = len(scores[favourite].real)
    said = f" The {count} real defects that no model trained on do not contradict this." if has_real else ""
    few = f" {count} real defects are too few to count in the choice." if count and not has_real else ""
    also = " It has learned from the other real defects." if learned and favourite == LEARNS else ""
    return favourite, f"{LABELS[favourite]} is taken: {why}.{said}{few}{also}"


def auroc(good: Sequence[float], bad: Sequence[float]) -> tuple[float, float, float]:
    """Return the image AUROC with its 95 % interval (bootstrap over images); NaN if either set is empty.

    Example:
        >>> auroc([0.0, 1.0], [2.0, 3.0])[0]
        1.0
    """
    wins = _wins(good, bad)
    if not wins.size:
        return math.nan, math.nan, math.nan
    return (float(wins.mean()), *_interval(wins))


def lead(first: Scores, second: Scores, kind: str) -> tuple[float, float, float]:
    """Return the difference of two models' AUROC on the same images, with its 95 % interval (paired bootstrap)."""
    gain = _wins(first.good, getattr(first, kind)) - _wins(second.good, getattr(second, kind))
    return (float(gain.mean()), *_interval(gain)) if gain.size else (0.0, 0.0, 0.0)


def _wins(good: Sequence[float], bad: Sequence[float]) -> np.ndarray:
    """Return a table (bad, good): 1 where the bad image scores higher than the good one, 0.5 for a tie, else 0."""
    high, low = np.asarray(bad, float)[:, None], np.asarray(good, float)[None]
    return (high > low) + 0.5 * (high == low)


def _interval(table: np.ndarray) -> tuple[float, float]:
    """Return the bootstrap interval of a table's mean; rows and columns are resampled independently."""
    random = np.random.default_rng(0)
    rows, columns = table.shape
    weights = random.multinomial(rows, np.full(rows, 1 / rows), _ROUNDS) / rows
    others = random.multinomial(columns, np.full(columns, 1 / columns), _ROUNDS) / columns
    means = np.einsum("kr,rc,kc->k", weights, table, others, optimize=True)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _time_scoring(
    network: Any, checkpoint: Path, files: Sequence[Path], inference: Any, batch_size: int, accelerator: str
) -> float:
    """Return the seconds to read and score an image, without loading the model: the second of two passes."""
    read = KeptImages("normals")
    ticks: list[float] = []

    def items() -> Iterator[Item]:
        for path in [*files, *files]:
            ticks.append(time.perf_counter())
            yield Item(row=Row(role="measure", path=str(path)), image=read(path))

    score_items(network, checkpoint, items(), inference=inference, batch_size=batch_size, accelerator=accelerator)
    return (time.perf_counter() - ticks[len(files)]) / len(files)
