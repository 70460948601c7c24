"""The specification of a comparison: models, synthesis, data and seeds, all checked before anything runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.comparison.from_config import build_datamodule, check_section
from anomalib_synth.images import ImageSize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anomalib.data import AnomalibDataModule

Arm = tuple[str, str]
TestDefects = Literal["real", "synthetic"]
_FROM_TEST = {"same_as_test", "from_test"}
_USABLE = ("from_train", "from_dir")
_EXTRA_KEYS = {"models": {"normalise"}, "synthesis": set(), "data": {"categories"}}


@dataclass(frozen=True, kw_only=True)
class ComparisonSpec:
    """A comparison as plain data.

    Args:
        models: Name -> ``{class_path, init_args}`` of an anomalib model, with ``normalise: {mean, std}`` where its
            network wants other statistics than the model's own pre-processor has.
        synthesis: Name -> list of Lightning callbacks ``{class_path, init_args}``; an empty list trains the model as it
            is. A callback that takes a ``seed`` and is given none gets the run's.
        data: Name -> ``{class_path, init_args}`` of an anomalib datamodule; with ``categories`` it stands for one
            datamodule per category, named ``name/category``.
        arms: Pairs of a model and a synthesis.
        baseline: The arm that the others are compared with.
        seeds: Seeds of the runs.
        steps: Optimiser steps of every arm that trains, >= 1; models that fix their epochs (PatchCore: one) keep them.
        image_size: Size in pixels that every model sees: the side of a square, or height x width, such as
            ``"384x512"``; None: each model's own pre-processor.
        false_alarm_rate: Rate the threshold is set for, in (0, 1); None: no threshold, no recall.
        test_defects: ``"real"``, or ``"synthetic"``: the test sets hold synthetic defects, to choose among models.

    Raises:
        ValueError: If a value is out of its range, a name or class is unknown, or a choice would be made on test data.
    """

    models: Mapping[str, Mapping[str, Any]]
    synthesis: Mapping[str, Sequence[Mapping[str, Any]]]
    data: Mapping[str, Mapping[str, Any]]
    arms: Sequence[Sequence[str]]
    baseline: Sequence[str]
    seeds: Sequence[int]
    steps: int
    image_size: int | str | None = None
    false_alarm_rate: float | None = 0.05
    test_defects: TestDefects = "real"

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_arms()
        for name, section in self.models.items():
            _check_keys("models", name, section)
            if self.image_size is not None and "pre_processor" in (section.get("init_args") or {}):
                msg = (
                    f"`image_size` {self.image_size} would replace the pre_processor of `models.{name}`. Leave out one "
                    "of them; `normalise: {mean: [...], std: [...]}` beside class_path sets the statistics."
                )
                raise ValueError(msg)
            statistics = section.get("normalise", {"mean": [], "std": []})
            if not hasattr(statistics, "keys") or set(statistics) != {"mean", "std"}:
                msg = f"`models.{name}.normalise` must have mean and std, got {statistics!r}."
                raise ValueError(msg)
            check_section("model", f"models.{name}", section)
        for name, callbacks in self.synthesis.items():
            _check_list(f"synthesis.{name}", callbacks, "a list of callbacks; empty: the model as it comes")
            for number, section in enumerate(callbacks):
                _check_keys("synthesis", f"{name}[{number}]", section)
                check_section("callback", f"synthesis.{name}[{number}]", section)
        for name, section in self.data.items():
            _check_keys("data", name, section)
            first, plain = next(iter(_expand(name, section).items()))  # categories differ in nothing else
            check_split(first, build_datamodule(first, plain), self.test_defects)

        names = [name for entry, section in self.data.items() for name in _names(entry, section)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"`data` must give every data set a name of its own, got {', '.join(twice)} twice. Rename one."
            raise ValueError(msg)

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """The sections of the datamodules by name, those with ``categories`` expanded."""
        return {name: plain for entry, section in self.data.items() for name, plain in _expand(entry, section).items()}

    @property
    def arm_names(self) -> list[str]:
        """Names of the arms, in order."""
        return [name_arm(*arm) for arm in self.arms]

    @property
    def baseline_name(self) -> str:
        """Name of the baseline."""
        return name_arm(*self.baseline)

    def trials(self) -> list[dict[str, Any]]:
        """Return one picklable mapping per run, seed by seed, so that an unfinished comparison has whole seeds."""
        listed = []
        for seed, (data, section), (model, synthesis) in product(self.seeds, self.datasets.items(), self.arms):
            trial = {
                "arm": name_arm(model, synthesis),
                "model": model,
                "synthesis": synthesis,
                "data": data,
                "seed": seed,
                "steps": self.steps,
                "image_size": self.image_size,
                "false_alarm_rate": self.false_alarm_rate,
                "model_section": dict(self.models[model]),
                "callback_sections": list(self.synthesis[synthesis]),
                "data_section": section,
            }
            if self.test_defects == "synthetic":
                trial["test_defects_are"] = self.test_defects
            listed.append({**trial, "config_hash": hash_config(trial)})
        return listed

    def _check_numbers(self) -> None:
        _check_list("seeds", self.seeds, "a list of whole numbers, three or more for an interval", least=1)
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            msg = f"`seeds` must be different whole numbers >= 0, got {list(self.seeds)}."
            raise ValueError(msg)
        if self.steps < 1:
            msg = f"`steps` must be >= 1, got {self.steps}."
            raise ValueError(msg)
        ImageSize.parse(self.image_size)
        if self.false_alarm_rate is not None and not 0 < self.false_alarm_rate < 1:
            msg = (
                f"`false_alarm_rate` must be in (0, 1), got {self.false_alarm_rate}. 0.05 means one good image in "
                "twenty; null leaves thresholds out."
            )
            raise ValueError(msg)

    def _check_arms(self) -> None:
        for argument in ("models", "synthesis", "data"):
            if not getattr(self, argument):
                msg = f"`{argument}` must name at least one entry, got none."
                raise ValueError(msg)
        _check_list("arms", self.arms, "a list of [model, synthesis] pairs, at least two", least=2)
        for arm in self.arms:
            if isinstance(arm, str) or len(arm) != 2:
                msg = f"Each of `arms` must be a pair [model, synthesis], got {arm!r}."
                raise ValueError(msg)
            for argument, name in zip(("models", "synthesis"), arm, strict=True):
                known = getattr(self, argument)
                if name not in known:
                    msg = f"`arms` must pair names from `models` and `synthesis`, got {name!r}; known {argument}: "
                    raise ValueError(msg + f"{', '.join(known)}.")
        if len(set(self.arm_names)) < len(self.arms):
            msg = f"`arms` must differ from each other, got {', '.join(self.arm_names)}."
            raise ValueError(msg)
        if len(self.baseline) != 2 or self.baseline_name not in self.arm_names:
            msg = f"`baseline` must be one of `arms`, got {list(self.baseline)}; known: {[list(a) for a in self.arms]}."
            raise ValueError(msg)


def name_arm(model: str, synthesis: str) -> str:
    """Return the name of an arm.

    Example:
        >>> name_arm("realnet", "rule_based")
        'realnet (rule_based)'
    """
    return f"{model} ({synthesis})"


def hash_config(trial: Mapping[str, Any]) -> str:
    """Return a digest of everything that defines a run, names included.

    Raises:
        ValueError: If it holds anything but plain data.
    """
    try:
        text = json.dumps(trial, sort_keys=True)
    except TypeError as error:
        msg = f"A comparison must be plain data, {{class_path, init_args}} all the way down: {error}."
        raise ValueError(msg) from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_split(name: str, datamodule: AnomalibDataModule, test_defects: TestDefects = "real") -> None:
    """Refuse a datamodule that chooses on test data, splits anew each time, or has other defects than asked for.

    Raises:
        ValueError: If it does; the message says what to set.
    """
    from anomalib_synth.data import SyntheticDataModule

    where, base = f"`data.{name}`", datamodule
    made: Sequence[str] = ()
    if isinstance(datamodule, SyntheticDataModule):
        base, made = datamodule.base, datamodule.splits
    is_synthetic = "test" in made or _value(base.test_split_mode) == "synthetic"
    if is_synthetic and test_defects == "real":
        msg = (
            f"{where} would be tested on synthetic defects, which shows nothing about real ones. Give it a test set "
            "with real defects; to choose among models without one, set `test_defects: synthetic`."
        )
        raise ValueError(msg)
    if test_defects == "synthetic" and not is_synthetic:
        msg = (
            f"`test_defects` synthetic takes data whose test is synthetic, but {where} brings its own test set. Wrap "
            "it in `anomalib_synth.data.SyntheticDataModule` with `splits: [test]`, or leave `test_defects` out."
        )
        raise ValueError(msg)
    mode = _value(base.val_split_mode)
    if "val" not in made:
        if mode in _FROM_TEST:
            msg = (
                f"{where} takes its validation images out of the test set (val_split_mode: {mode}), so thresholds "
                "would be chosen on test data. Set `val_split_mode: from_train`."
            )
            raise ValueError(msg)
        if mode not in _USABLE:
            msg = (
                f"{where} must hold good images back from training (val_split_mode: {' or '.join(_USABLE)}), got "
                f"{mode!r}. Set `val_split_mode: from_train`, and `val_split_ratio`."
            )
            raise ValueError(msg)
    if datamodule.seed is None:
        msg = f"{where} must have a seed, or every run would be split in another way. Set `seed: 0` in its init_args."
        raise ValueError(msg)


def _names(entry: str, section: Mapping[str, Any]) -> list[str]:
    """Return the names of the data sets of an entry."""
    return [f"{entry}/{each}" for each in section["categories"]] if "categories" in section else [entry]


def _expand(name: str, section: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the datamodules of an entry by name: one, or one per category."""
    plain = {"class_path": section["class_path"], "init_args": dict(section.get("init_args") or {})}
    if "categories" not in section:
        return {name: plain}
    categories = section["categories"]
    _check_list(f"data.{name}.categories", categories, "a list of category names", least=1)
    return {f"{name}/{each}": {**plain, "init_args": {**plain["init_args"], "category": each}} for each in categories}


def _value(mode: Any) -> str:
    return str(getattr(mode, "value", mode))


def _check_keys(argument: str, name: str, section: Any) -> None:
    """Refuse a section that is no ``{class_path, init_args}``."""
    allowed = {"class_path", "init_args", *_EXTRA_KEYS[argument]}
    if not hasattr(section, "keys") or "class_path" not in section or set(section) - allowed:
        got = sorted(section) if hasattr(section, "keys") else section
        msg = f"`{argument}.{name}` must have class_path, and may have {sorted(allowed - {'class_path'})}, got {got!r}."
        raise ValueError(msg)
    if "." not in str(section["class_path"]):
        got = section["class_path"]
        msg = f"`{argument}.{name}` must name a class with its module, such as anomalib.models.Padim, got {got!r}."
        raise ValueError(msg)


def _check_list(argument: str, value: Any, rule: str, *, least: int = 0) -> None:
    if not isinstance(value, list | tuple) or len(value) < least:
        msg = f"`{argument}` must be {rule}, got {value!r}."
        raise ValueError(msg)
