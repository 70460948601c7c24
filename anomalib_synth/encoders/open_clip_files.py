"""A model of open_clip on disk: its configuration and the shapes of its weights, checked before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from anomalib_synth.models.completeness import describe_misfit
from anomalib_synth.models.config_files import read_config
from anomalib_synth.models.pretrained import check_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

LOCAL_DIR = "local-dir:"
CONFIG = "open_clip_config.json"
_WHAT = "open_clip model"
REMEDY = (
    "Fetch the model again from where it is published; one that open_clip knows by name can be named with its file: "
    "`open_clip:ViT-B-32:/path/to/open_clip_model.safetensors`."
)
_PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_TOKENIZER_ARGUMENTS = {"clean", "language", "strip_sep_token"}  # others reach transformers, trust_remote_code too
_LEAST_IN_A_LAYER = 4  # attention of width w has as many w x w matrices


def check_folder(folder: Path) -> None:
    """Refuse a folder whose configuration names a hub or code, or sizes its weights do not have.

    Raises:
        ValueError: Naming file, entry, rule and remedy.
    """
    path = folder / CONFIG
    check_files(folder, what=_WHAT, remedy=REMEDY)
    config = read_config(path, what=_WHAT, remedy=REMEDY).get("model_cfg")
    vision, text = (config.get(name) if isinstance(config, dict) else None for name in ("vision_cfg", "text_cfg"))
    if not isinstance(vision, dict) or not isinstance(text, dict):
        msg = (
            f"{str(path)!r} must have `model_cfg` with `vision_cfg` and `text_cfg`, got {str(config)[:100]!r}. {REMEDY}"
        )
        raise ValueError(msg)
    _check_tower_names(folder, vision, text)
    weights = find_weights(folder)
    if weights is None:
        msg = f"{str(folder)!r} must hold the weights of its model as *.safetensors, got none. {REMEDY}"
        raise ValueError(msg)
    _check_sizes(path, vision, text, weights.stat().st_size)


def find_weights(folder: Path) -> Path | None:
    """Return the weight file that open_clip takes out of a folder, None if there is none."""
    preferred = [folder / name for name in _PREFERRED if (folder / name).is_file()]
    others = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin")), *sorted(folder.glob("*.pth"))]
    return next(iter([*preferred, *others]), None)


def names_local_files(name: str, open_clip: ModuleType) -> bool:
    """Return whether loading ``MODEL:PRETRAINED`` needs files of this machine alone, its tokenizer included."""
    if name.startswith(LOCAL_DIR):
        return True
    model, _, pretrained = name.partition(":")
    if name.startswith("hf-hub:") or not Path(pretrained).is_file() or "siglip" in model.lower():
        return False
    text = (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    return not text.get("hf_model_name") and not text.get("hf_tokenizer_name")


def check_shapes(model: torch.nn.Module, weights: Path) -> None:
    """Refuse weights of another shape, which open_clip would stretch until they fit (position embeddings).

    Raises:
        ValueError: Naming the tensors.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    held = _read_shapes(weights)
    misshapen = [
        (name, held[name], shape)
        for name, shape in wanted.items()
        if name in held and torch.Size(held[name]).numel() != torch.Size(shape).numel()
    ]
    if misfit := describe_misfit(misshapen=misshapen):
        msg = f"{str(weights)!r} must hold the weights of the model that was named: {misfit}. {REMEDY}"
        raise ValueError(msg)


def _read_shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    if weights.suffix == ".safetensors":
        with safe_open(weights, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if weights.suffix in {".npz", ".npy"}:
        return {}
    content = torch.load(weights, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {
        str(name).removeprefix("module."): tuple(value.shape)
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def _check_tower_names(folder: Path, vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    rules = {
        "`vision_cfg.timm_model_name` must be a plain name of timm": _is_foreign(vision.get("timm_model_name")),
        "`text_cfg.hf_tokenizer_name` must come with the tokenizer's files in the folder": bool(
            text.get("hf_tokenizer_name")
        )
        and not any((folder / name).is_file() for name in _TOKENIZER_FILES),
        f"`text_cfg.tokenizer_kwargs` must be among {sorted(_TOKENIZER_ARGUMENTS)}": bool(
            set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_ARGUMENTS
        ),
    }
    for rule, broken in rules.items():
        if broken:
            section, _, key = rule.split("`")[1].partition(".")
            got = (vision if section == "vision_cfg" else text).get(key)
            msg = f"{str(folder / CONFIG)!r}: {rule}, got {got!r}. {REMEDY}"
            raise ValueError(msg)


def _is_foreign(name: Any) -> bool:
    return name is not None and not (isinstance(name, str) and not set(name) & set(":/\\"))


def _check_sizes(path: Path, vision: Mapping[str, Any], text: Mapping[str, Any], held: int) -> None:
    """Refuse sizes that take more numbers than the weights have bytes: the library would make room for them first."""
    for name, tower in (("vision_cfg", vision), ("text_cfg", text)):
        width, layers, words = (tower.get(key, 0) for key in ("width", "layers", "vocab_size"))
        layers = sum(layers) if isinstance(layers, list) and all(type(each) is int for each in layers) else layers
        if not all(type(each) is int and each >= 0 for each in (width, layers, words)):
            got = {key: tower.get(key) for key in ("width", "layers", "vocab_size")}
            msg = f"{str(path)!r}: `{name}` must have integers >= 0 as sizes, got {got}. {REMEDY}"
            raise ValueError(msg)
        least = max(
            _LEAST_IN_A_LAYER * layers * width**2 if not isinstance(tower.get("layers"), list) else 0, words * width
        )
        if least > held:
            msg = f"{str(path)!r}: `{name}` takes at least {least} weights, its file has {held} bytes. {REMEDY}"
            raise ValueError(msg)
