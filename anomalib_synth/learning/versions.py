"""The versions of a detector: what each has learned, its heads, and the way back."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from anomalib_synth.calibration.checkpoints import read_checkpoint, save_checkpoint
from anomalib_synth.calibration.training_run import find_config
from anomalib_synth.images import digest_file
from anomalib_synth.learning.build_folder import enter_build
from anomalib_synth.store.files import write_whole
from anomalib_synth.store.locking import exclusive

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_FOLDER = "learned"
_CURRENT = "detector.ckpt"
_VERSION = "anomalib_synth_version"  # in a checkpoint
_PARTS = (
    "feature_head", "residual_head", "map_weights", "offset", "trust", "maximum", "has_heads", "threshold",
    "image_min", "image_max", "pixel_min", "pixel_max",
)  # fmt: skip


@dataclass(frozen=True)
class Version:
    """One version.

    Args:
        number: Its number; 1 is the detector as it was trained.
        about: What was learned and measured, plain data.
    """

    number: int
    about: dict[str, Any]


class DetectorFolder:
    """A detector with its versions: a folder of `anomalib train`, or of `anomalib-synth calibrate` or `build`.

    Its subfolder ``learned/`` holds the versions (their heads, scales and thresholds, some 300 KB each) and the memory;
    ``learned/detector.ckpt`` is the current version, as `anomalib predict --ckpt_path` takes it. Files that were there
    before are not changed.

    Args:
        folder: The folder, or a checkpoint.

    Raises:
        ValueError: If it holds no checkpoint, or several, or is a build that has not ended.
    """

    def __init__(self, folder: Path) -> None:
        folder = enter_build(folder.resolve() if folder.exists() else folder)
        place = folder if folder.is_dir() else folder.parent
        if place.name == _FOLDER:  # what `learn` wrote
            folder = place = place.parent
        self.base = find_base(folder)
        self.folder = place
        self.config = _find_config(self.base)

    @property
    def memory(self) -> Path:
        """Where examples and features are kept."""
        return self.folder / _FOLDER / "memory"

    @property
    def current(self) -> Path:
        """The checkpoint of the current version; before anything is learned, that of the base."""
        path = self.folder / _FOLDER / _CURRENT
        return path if path.exists() else self.base

    def read_current(self) -> dict[str, Any]:
        """Return the checkpoint of the current version; it is rebuilt if a killed writer left another one.

        Raises:
            ValueError: If it cannot be read.
        """
        history = self._read_history()
        number = history["versions"][-1] if history["versions"] else 1
        checkpoint = read_checkpoint(self.current)
        if checkpoint.get(_VERSION, 1) != number:
            checkpoint = self._rebuild(history["versions"])
            save_checkpoint(checkpoint, self.folder / _FOLDER / _CURRENT)
        return checkpoint

    def locked(self) -> AbstractContextManager[None]:
        """Keep another `learn` of the same detector out.

        Raises:
            StoreError: On entering, if one is at work.
        """
        (self.folder / _FOLDER).mkdir(exist_ok=True)
        busy = f"Another `learn` is at work on {str(self.folder)!r}. Wait until it has ended."
        return exclusive(self.folder / _FOLDER / "lock", wait=0.0, busy=busy)

    @property
    def versions(self) -> list[Version]:
        """The versions that the current one builds on, and the current one, oldest first; 1 is the base."""
        return [
            Version(1, {"learned": []}),
            *(Version(n, self._read(f"{n:04d}.json")) for n in self._read_history()["versions"]),
        ]

    def save(self, state: dict[str, torch.Tensor], checkpoint: dict[str, Any], about: dict[str, Any]) -> Version:
        """Write a new version and make it the current one, whole or not at all.

        Args:
            state: The model's state.
            checkpoint: The whole checkpoint, with that state and the thresholds.
            about: What was learned and measured, as plain data.
        """
        history = self._read_history()
        number = history["last"] + 1
        parts = {name: value.contiguous() for name, value in state.items() if any(part in name for part in _PARTS)}
        write_whole(self.folder / _FOLDER / f"{number:04d}.safetensors", save(parts))
        write_whole(self.folder / _FOLDER / f"{number:04d}.json", json.dumps(about, indent=1).encode())
        self._set_current([*history["versions"], number], number, {**checkpoint, _VERSION: number})
        return Version(number, about)

    def undo(self) -> Version:
        """Go back to the version that the current one was made from.

        Returns:
            The version that is current now.

        Raises:
            ValueError: If the current version is the first one.
        """
        history = self._read_history()
        if not history["versions"]:
            msg = f"There is nothing to undo: {str(self.folder)!r} is at version 1, the detector as it was trained."
            raise ValueError(msg)
        left = history["versions"][:-1]
        self._set_current(left, history["last"], self._rebuild(left))
        return self.versions[-1]

    def _rebuild(self, versions: list[int]) -> dict[str, Any]:
        """Return the checkpoint of the last of some versions, from the base and the parts that were kept."""
        checkpoint = read_checkpoint(self.base)
        if not versions:
            return checkpoint
        name = f"{versions[-1]:04d}"
        path = self.folder / _FOLDER / f"{name}.safetensors"
        try:
            put_state(checkpoint, load(path.read_bytes()))
        except (SafetensorError, OSError, KeyError) as error:
            msg = f"{str(path)!r} cannot be read: {error}. Without it there is no way back to version {versions[-1]}."
            raise ValueError(msg) from error
        return {**checkpoint, **self._read(f"{name}.json")["checkpoint"], _VERSION: versions[-1]}

    def _set_current(self, versions: list[int], last: int, checkpoint: dict[str, Any]) -> None:
        history = {"versions": versions, "last": last, "base": self._relative(), "content": digest_file(self.base)}
        write_whole(self.folder / _FOLDER / "history.json", json.dumps(history).encode())
        save_checkpoint(checkpoint, self.folder / _FOLDER / _CURRENT)

    def _relative(self) -> str:
        return Path(os.path.relpath(self.base, self.folder)).as_posix()

    def _read_history(self) -> dict[str, Any]:
        path = self.folder / _FOLDER / "history.json"
        if not path.exists():
            return {"versions": [], "last": 1}
        history = self._read("history.json")
        listed = history.get("versions")
        numbers = [history.get("last"), *(listed if isinstance(listed, list) else [None])]
        if not all(type(number) is int and number >= 1 for number in numbers):
            msg = f"{str(path)!r} is damaged: it names no version. Remove it to begin again from the trained detector."
            raise ValueError(msg)
        if history.get("base") != self._relative() or history.get("content") != digest_file(self.base):
            msg = (
                f"What was learned in {str(self.folder)!r} belongs to {history.get('base')!r} as it was then, and the "
                f"detector is {self._relative()!r} now, or was trained or calibrated again. Move the folder "
                f"`{_FOLDER}` away to begin again."
            )
            raise ValueError(msg)
        return history

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / _FOLDER / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{str(path)!r} cannot be read: {error}."
            raise ValueError(msg) from error
        kinds = {"learned": list, "checkpoint": dict} if name != "history.json" else {}
        if not isinstance(content, dict) or any(type(content.get(key)) is not kind for key, kind in kinds.items()):
            msg = f"{str(path)!r} is damaged: it is not what `learn` writes."
            raise ValueError(msg)
        return content


def put_state(checkpoint: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """Put parts of a model's state into a checkpoint, and thresholds where the post-processor keeps its own copy."""
    for name, value in state.items():
        checkpoint["state_dict"][name] = value.clone()
        own = name.removeprefix("post_processor.")
        for kept in checkpoint.get("callbacks", {}).values():
            if own != name and hasattr(kept, "keys") and own in kept:
                kept[own] = value.clone()


def has_learned(folder: Path) -> bool:
    """Return whether `learn` has written versions of the detector of a folder, or the folder is where it wrote them."""
    place = folder.parent if folder.name == _FOLDER else folder
    return (place / _FOLDER / "history.json").is_file()


def set_learned_aside(folder: Path) -> Path | None:
    """Rename the folder with what was learned, before another detector takes the base's place; return its new path.

    What was learned belongs to that base alone. To use it again, put the old checkpoint back and give the folder its
    old name.

    Returns:
        The new path, None if nothing was learned.
    """
    if not has_learned(folder):
        return None
    numbers = itertools.count(1)
    target = next(place for n in numbers if not (place := folder / f"{_FOLDER}.before-{n}").exists())
    (folder / _FOLDER).rename(target)
    return target


def find_base(folder: Path) -> Path:
    """Return the checkpoint of a detector: the calibrated one, else the only one that its training left.

    Raises:
        ValueError: If the folder holds no checkpoint, or several and none is calibrated.
    """
    if folder.is_file():
        return folder
    if not folder.is_dir():
        msg = (
            "`detector` must be a folder of `anomalib train`, or of `anomalib-synth calibrate` or `build`, got "
            f"{str(folder)!r}."
        )
        raise ValueError(msg)
    calibrated = folder / "calibrated.ckpt"
    if calibrated.is_file():
        return calibrated
    found = [path for path in sorted(folder.rglob("*.ckpt")) if _FOLDER not in path.relative_to(folder).parts]
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found[:3]) + (", ..." if len(found) > 3 else "")
        what = f"{len(found)}: {listed}. Name one of them" if found else "none. Give the folder of a run"
        msg = f"`detector` {str(folder)!r} must hold one checkpoint (.ckpt), got {what}."
        raise ValueError(msg)
    return found[0]


def _find_config(base: Path) -> Path:
    """Return the configuration a checkpoint was trained with.

    Raises:
        ValueError: If there is none.
    """
    config = find_config(base)
    if config is None:
        msg = (
            f"`detector` must have been trained by `anomalib train`, which leaves a config.yaml, but there is none "
            f"above {str(base)!r}: nothing says which images it knows and what drew its defects."
        )
        raise ValueError(msg)
    return config
