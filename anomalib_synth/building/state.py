"""The finished steps of a build, each with a digest of its inputs, so that the next run continues there."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

_FORMAT = 1


class BuildState:
    """The finished steps of a build, kept in a file.

    Args:
        path: ``build.json``. If it cannot be read or has another format, no step counts as finished.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.steps: dict[str, dict[str, Any]] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        steps = content.get("steps") if isinstance(content, dict) and content.get("format") == _FORMAT else None
        if isinstance(steps, dict):
            self.steps = {name: step for name, step in steps.items() if _is_step(step)}

    def find(self, name: str, inputs: Any, files: tuple[Path, ...] = ()) -> Any:
        """Return the result of a step if it was made from the same inputs and its files are there, else None."""
        step = self.steps.get(name)
        if step is None or step["inputs"] != digest(inputs) or not all(path.is_file() for path in files):
            return None
        return step["result"]

    def seconds(self, name: str) -> float:
        """Return how long a step took, 0 for one that is not done."""
        return float(self.steps.get(name, {}).get("seconds", 0.0))

    def forget(self, name: str) -> None:
        """Remove a step, also on disk. Done before its files are replaced, as a killed run leaves some of them."""
        if self.steps.pop(name, None) is not None:
            self._write()

    def save(self, name: str, inputs: Any, result: Any, *, seconds: float) -> None:
        """Record that a step is done."""
        self.steps[name] = {"inputs": digest(inputs), "seconds": round(seconds, 2), "result": result}
        self._write()

    def _write(self) -> None:
        content = {"format": _FORMAT, "steps": self.steps}
        write_whole(self._path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def digest(inputs: Any) -> str:
    """Return the digest of plain data.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _is_step(step: Any) -> bool:
    return isinstance(step, dict) and {"inputs", "result", "seconds"} <= step.keys()
