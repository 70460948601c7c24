"""Splits the good images: some train, some compare the models, some set and measure the threshold."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from anomalib_synth.calibration.statistics import least_count
from anomalib_synth.generators.seeding import hash64

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST = 20  # images
FEW = 60
LEAST_PARTS = 4  # named by `group_by`: one sets the threshold, one measures it, one compares models, one trains
_LEAST_CALIBRATION = 10
_MOST_CALIBRATION, _MOST_VALIDATION = 200, 40


@dataclass(frozen=True, kw_only=True)
class Split:
    """The contents (digests) of the images by purpose; no near copies are in different lists.

    Args:
        train: The models train on these.
        validation: The models are compared on these, and they set the scale of anomalib's scores.
        calibration: Half of these set the threshold, and half measure it.
    """

    train: list[str]
    validation: list[str]
    calibration: list[str]


def count_held_out(count: int, rate: float) -> tuple[int, int]:
    """Return how many of ``count`` images are held out for calibration and for validation.

    Calibration gets as many as the false-alarm rate needs, or a fifth if that is more, but at most 35 % and 200.

    Raises:
        ValueError: If there are fewer than 20 images.

    Example:
        >>> count_held_out(250, 0.05), count_held_out(40, 0.05)
        ((50, 30), (14, 5))
    """
    if count < LEAST:
        msg = (
            f"`normals` must hold at least {LEAST} different images, got {count}: some train, some choose the model, "
            "and at least ten set and measure the threshold. Take more pictures of good parts."
        )
        raise ValueError(msg)
    wanted = max(2 * least_count(rate), round(0.2 * count))
    calibration = max(_LEAST_CALIBRATION, min(wanted, int(0.35 * count), _MOST_CALIBRATION))
    return calibration, min(max(3, round(0.12 * count)), _MOST_VALIDATION)


def reachable_rate(calibration: int, rate: float) -> float:
    """Return the false-alarm rate that so many calibration images can keep: ``rate``, or the lowest possible one.

    Example:
        >>> reachable_rate(38, 0.05), reachable_rate(14, 0.05)
        (0.05, 0.125)
    """
    half = calibration // 2
    return rate if half >= least_count(rate) else math.ceil(1000 / (half + 1)) / 1000


def split_images(groups: Sequence[Sequence[str]], rate: float, seed: int, parts: Sequence[str] = ()) -> Split:
    """Split contents; the split depends only on content and seed.

    Of a group of near copies at most one image is held out; then the others are not used at all. All images of a named
    part have the same purpose: setting the threshold, measuring it, comparing the models, or training.

    Args:
        groups: Contents, near copies in one group.
        rate: Target rate of false alarms, in (0, 1).
        seed: Seed of the choice.
        parts: The part that each group shows, if the user named them.

    Raises:
        ValueError: If there are too few images or parts.
    """
    calibration, validation = count_held_out(len(groups), rate)
    ordered = sorted(
        (sorted(group) for group in groups), key=lambda group: (len(group) > 1, hash64(seed, "build", group[0]))
    )
    if parts:
        part_of = {content: part for group, part in zip(groups, parts, strict=True) for content in group}
        held, compared, rest = _hold_out_parts(ordered, part_of, calibration, validation)
    else:
        held, rest = ordered[:calibration], ordered[calibration:]
        compared, rest = rest[:validation], rest[validation:]
    return Split(
        train=sorted(content for group in rest for content in group),
        validation=sorted(group[0] for group in compared),
        calibration=sorted(group[0] for group in held),
    )


def _hold_out_parts(
    ordered: Sequence[list[str]], part_of: Mapping[str, str], calibration: int, validation: int
) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """Return the groups of whole parts for calibration (at least two parts), for validation and for training."""
    by_part: dict[str, list[list[str]]] = defaultdict(list)
    for group in ordered:
        by_part[part_of[group[0]]].append(group)
    if len(by_part) < LEAST_PARTS:
        msg = (
            f"`group_by` must tell at least {LEAST_PARTS} parts from each other, got {len(by_part)}: one sets the "
            "threshold, one measures it, one compares the models, and the others train. Give pictures of more parts, "
            "or leave `group_by` out."
        )
        raise ValueError(msg)
    first, rest = _take(list(by_part.values()), calibration // 2, spare=3)
    second, rest = _take(rest, calibration - len(first), spare=2)
    compared, rest = _take(rest, validation, spare=1)
    held = [*first, *second]
    if len(held) < _LEAST_CALIBRATION:
        msg = (
            f"`group_by` must leave parts with at least {_LEAST_CALIBRATION} images in all to set and measure the "
            f"threshold, got {len(held)}. Give more pictures of each part, or leave `group_by` out."
        )
        raise ValueError(msg)
    return held, compared, [group for part in rest for group in part]


def _take(parts: Sequence[list[list[str]]], count: int, *, spare: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Return about ``count`` groups of whole parts (at least one part), and the rest (at least ``spare`` parts)."""
    taken: list[list[str]] = []
    left: list[list[list[str]]] = []
    for n, part in enumerate(parts):
        room = count - len(taken)
        fits = room > 0 and len(part) - room <= max(room - 1, count // 4, 2)
        if fits and len(left) + len(parts) - n > spare:
            taken += part
        else:
            left.append(part)
    if not taken:
        smallest = min(left, key=len)
        return smallest, [part for part in left if part is not smallest]
    return taken, left


def split_defects(groups: Sequence[Sequence[str]], seed: int, *, least: int = 10) -> tuple[list[str], list[str]]:
    """Return which real defects train the model and which are kept for the evaluation.

    From ``least`` groups on it is half each; with fewer, all are kept for the evaluation.

    Args:
        groups: Contents, near copies in one group; a group is not divided.
        seed: Seed of the choice.
        least: Number of groups from which on half of them train.
    """
    ordered = sorted(map(sorted, groups), key=lambda group: hash64(seed, "build defects", group[0]))
    half = len(ordered) // 2 if len(ordered) >= least else 0
    learned, judged = (sorted(chain.from_iterable(part)) for part in (ordered[:half], ordered[half:]))
    return learned, judged


def warn_of_few(count: int, calibration: int, rate: float) -> list[str]:
    """Return warnings about what so few images cannot promise."""
    warnings = []
    reachable = reachable_rate(calibration, rate)
    if reachable > rate:
        needed = math.ceil(2 * least_count(rate) / 0.35)
        warnings.append(
            f"{100 * rate:.3g} % false alarms cannot be promised with {count} good images: {calibration // 2} of them "
            f"set the threshold, and so few can promise {100 * reachable:.3g} % at best. The threshold is set for "
            f"{100 * reachable:.3g} %. About {needed} images would be enough."
        )
    if count < FEW:
        warnings.append(
            f"{count} good images are few: the models see little of what is normal, and every share below has a wide "
            f"interval. Give {FEW} or more."
        )
    return warnings
