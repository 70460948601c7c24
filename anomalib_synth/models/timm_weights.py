"""Loads timm networks with all of their weights: timm leaves missing weights random and only logs that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.models.completeness import describe_misfit
from anomalib_synth.models.config_files import read_config

if TYPE_CHECKING:
    from torch import nn

LOCAL_DIR = "local-dir:"
_REMEDY = "Give the file of the network that is named, as timm publishes it: no prefix, no other network."
_FORBIDDEN_ARGUMENTS = ("pretrained", "checkpoint_path", "cache_dir", "scriptable", "exportable", "features_only")
_HEADS = ("fc.", "head.", "head_dist.", "classifier.", "last_linear.")  # features do not need these


def load_timm_network(name: str, *, weights: Path | None = None, **options: Any) -> nn.Module:
    """Return a pretrained timm network after checking that every weight was read.

    Args:
        name: Name of a timm network, or ``local-dir:FOLDER``.
        weights: Weight file to read in place of timm's own.
        options: Further arguments of ``timm.create_model``.

    Raises:
        ValueError: If the weights are not those of the whole network, or a folder's config.json is refused.
        OSError: If the weights cannot be read.
    """
    import timm

    file = weights
    if name.startswith(LOCAL_DIR):
        folder = Path(name.removeprefix(LOCAL_DIR))
        check_folder(folder)
        file = _find_file(folder)
    if file is None:
        return _check_seeds(name, options)
    state = timm.models.load_state_dict(str(file))
    return _check_values(name, file, state, options)


def check_folder(folder: Path) -> None:
    """Refuse a folder for ``local-dir:`` whose config.json names other weights or how to fetch them.

    Raises:
        ValueError: If an entry is refused; the message names it.
    """
    import timm

    path = folder / "config.json"
    config = read_config(path, what="timm model", remedy=_REMEDY)
    nested = config.get("pretrained_cfg", config)
    arguments = config.get("model_args") or {}
    if not isinstance(nested, dict) or not isinstance(arguments, dict):
        msg = f"{str(path)!r} must have objects as `pretrained_cfg` and `model_args`, got {nested!r:.100}. {_REMEDY}"
        raise ValueError(msg)
    name = config.get("architecture")
    if not isinstance(name, str) or not timm.is_model(name):
        msg = f"{str(path)!r} must name a network of timm as `architecture`, got {name!r}. {_REMEDY}"
        raise ValueError(msg)
    for key in arguments:
        if str(key).startswith(_FORBIDDEN_ARGUMENTS):
            msg = f"{str(path)!r} must not say how weights are loaded, got `model_args.{key}`. {_REMEDY}"
            raise ValueError(msg)


def _find_file(folder: Path) -> Path:
    """Return the weight file of a folder."""
    files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin")), *sorted(folder.glob("*.pth"))]
    preferred = [file for file in files if file.stem in {"model", "pytorch_model"}]
    if not files:
        msg = f"{str(folder)!r} must hold the network's weights, as model.safetensors, got none. {_REMEDY}"
        raise ValueError(msg)
    return [*preferred, *files][0]


def _check_values(name: str, file: Path, state: dict[str, torch.Tensor], options: dict[str, Any]) -> nn.Module:
    """Load a state dict twice, the second time with other values: a weight that stays the same was not read.

    Comparing names is not enough, because timm renames the weights of older files.
    """
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        msg = f"{str(file)!r} must hold a state dict of {name!r}, names and tensors. {_REMEDY}"
        raise ValueError(msg)
    other = {key: -value.float() - 1 if value.is_floating_point() else value for key, value in state.items()}
    network, again = (_create(name, {"source": "", "state_dict": dict(each)}, options) for each in (state, other))
    second = again.state_dict()
    found = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    missing = [key for key, value in found.items() if torch.equal(value, second[key])]
    odd = sorted(key for key, value in found.items() if not value.isfinite().all())
    misfit = describe_misfit(missing=missing, unexpected=_find_unexpected(name, state))
    if odd and not misfit:
        misfit = f"{odd[0]!r} holds values that are not finite"
    if misfit:
        held = f" It holds {sorted(state)[0]!r}." if missing else ""
        msg = f"{str(file)!r} must hold all weights of {name!r} and no others: {misfit}.{held} {_REMEDY}"
        raise ValueError(msg)
    return network


def _find_unexpected(name: str, state: dict[str, torch.Tensor]) -> list[str]:
    """Return the tensors that a file holds beyond the network, if it uses timm's own names."""
    with torch.device("meta"):
        full = _create(name, None, {}).state_dict()
    body = {key for key in full if not key.startswith(_HEADS)}
    if not body <= set(state):
        return []
    return [key for key in state if key not in full and not key.startswith(_HEADS)]


def _check_seeds(name: str, options: dict[str, Any]) -> nn.Module:
    """Load timm's own weights into networks of two seeds: a weight that still differs was not read."""
    network, again = (_create(name, {}, options, seed=seed) for seed in range(2))
    second = again.state_dict()
    random = [key for key, value in network.state_dict().items() if not torch.equal(value, second[key])]
    if random:
        msg = (
            f"The weights of {name!r} must be those of the whole network: {describe_misfit(missing=random)}. {_REMEDY}"
        )
        raise ValueError(msg)
    return network


def _create(name: str, overlay: dict[str, Any] | None, options: dict[str, Any], *, seed: int = 0) -> nn.Module:
    """Return the network; with an overlay of timm's ``pretrained_cfg``, with the weights that the overlay names."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if overlay is None:
            return timm.create_model(name, pretrained=False, **options)
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
