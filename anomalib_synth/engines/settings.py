"""The settings that a store was made with, compared with those of another run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.identity import ALGORITHM

if TYPE_CHECKING:
    from anomalib_synth.generators import AnomalyGenerator

_MISSING = "nothing"


def choose_settings(
    generator: AnomalyGenerator, *, seed: int, image_size: int | str | None, split: str, max_normals: int
) -> dict[str, Any]:
    """Return the settings that are known before any image is read, as plain data."""
    return as_plain(
        {
            "algorithm": ALGORITHM,
            "generator": generator.config,
            "files_digest": generator.files_digest,
            "weights_hash": generator.weights_hash,
            "seed": seed,
            "image_size": image_size,
            "split": split,
            "max_normals": max_normals,
        }
    )


def as_plain(settings: Any) -> Any:
    """Return settings as JSON gives them back."""
    return json.loads(json.dumps(settings, sort_keys=True, default=str))


def check_same(kept: dict[str, Any], wanted: dict[str, Any], store: str) -> None:
    """Refuse to go on with settings other than the store's; only the keys of ``wanted`` are compared.

    Raises:
        ValueError: If any differs; the message names up to five, each with the store's value and the one asked for.
    """
    before, after = _flatten({key: kept.get(key, _MISSING) for key in wanted}), _flatten(as_plain(wanted))
    differing = [
        f"{name}: {before.get(name, _MISSING)!r} in the store, {after.get(name, _MISSING)!r} now"
        for name in sorted({*before, *after})
        if before.get(name, _MISSING) != after.get(name, _MISSING)
    ]
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        msg = f"The store {store!r} was made with other settings ({shown}). Use the same ones, or another `out`."
        raise ValueError(msg)


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Turn nested mappings into one level with dotted names."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flatten(entry, f"{name}.{key}" if name else str(key))
    return flat
