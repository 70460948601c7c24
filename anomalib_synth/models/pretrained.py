"""Networks in folders of diffusers and transformers: loaded completely, by a class the caller chose, or refused."""

from __future__ import annotations

import importlib.util
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.models.completeness import check_complete, check_room
from anomalib_synth.models.config_files import check_config, read_config, read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WORDS = {"tokenizer.json", "vocab.json", "added_tokens.json"}  # may hold any word


def load_network(component: str, path: Path, cls: Any, dtype: torch.dtype | str, *, remedy: str) -> Any:
    """Return a network with all of its weights.

    ``from_pretrained`` of both libraries fills missing weights with random numbers and only logs that. Here, its list
    of missing keys (``output_loading_info``) is checked.

    Args:
        component: Name of the network, for the error.
        path: Folder of the network; call :func:`check_files` on it first.
        cls: Class to load, of diffusers or transformers.
        dtype: Data type of the loaded weights.
        remedy: What to do, for the error.

    Raises:
        ValueError: If files are missing, or weights are missing, unexpected or of another shape.
    """
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    if _is_of_transformers(cls):
        options[_name_of_dtype()] = dtype
    else:
        options |= {"torch_dtype": dtype, "low_cpu_mem_usage": importlib.util.find_spec("accelerate") is not None}
    with _refusing(component, path, cls, remedy):
        needed = _count_weights(path, cls)
    check_room(component, path, needed, remedy=remedy)
    with _refusing(component, path, cls, remedy):
        model, info = cls.from_pretrained(path, ignore_mismatched_sizes=True, **options)
    check_complete(component, path, info, remedy=remedy)
    return model


@contextmanager
def _refusing(component: str, path: Path, cls: Any, remedy: str) -> Iterator[None]:
    """Give what goes wrong within one kind of error."""
    try:
        yield
    except Exception as error:  # both libraries raise many kinds of errors for files that do not fit
        msg = f"`{component}` in {str(path)!r} cannot be loaded as {cls.__name__}: {error} {remedy}"
        raise ValueError(msg) from error


def check_files(folder: Path, *, what: str, remedy: str) -> None:
    """Refuse JSON that names a hub or code, shards outside their folder, and adapters to a model elsewhere.

    Args:
        folder: Folder of one network, tokenizer or scheduler.
        what: What it belongs to, for the error.
        remedy: What to do, for the error.

    Raises:
        ValueError: If a file breaks one of these rules; the message names file and entry.
    """
    if (folder / "adapter_config.json").exists():  # it names the repository of the base model
        msg = (
            f"{str(folder)!r} must hold a whole model, got an adapter to one that lies elsewhere. Merge the two first."
        )
        raise ValueError(msg)
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".index.json"):
            _check_shards(path, what=what, remedy=remedy)
        elif path.name == "config.json":
            read_config(path, what=what, remedy=remedy)
        elif path.name not in _WORDS:
            content = read_json_object(path, what=what, remedy=remedy, finite=False)
            check_config(content, path=path, what=what, remedy=remedy, sizes=False)


def _check_shards(path: Path, *, what: str, remedy: str) -> None:
    """Refuse an index of shards that names files outside its folder."""
    shards = read_json_object(path, what=what, remedy=remedy).get("weight_map")
    names = {str(name) for name in shards.values()} if isinstance(shards, dict) else {str(shards)}
    for name in sorted(names):
        if "/" in name or "\\" in name or not (path.parent / name).is_file():
            msg = f"{str(path)!r} of the {what} must name files of its folder as `weight_map`, got {name!r}. {remedy}"
            raise ValueError(msg)


def _count_weights(path: Path, cls: Any) -> int:
    """Return the number of weights of a network, without allocating them."""
    if not (path / "config.json").is_file():
        msg = "it has no config.json."
        raise ValueError(msg)
    with torch.device("meta"):
        if _is_of_transformers(cls):
            model = cls(cls.config_class.from_pretrained(path, local_files_only=True))
        else:
            model = cls.from_config(json.loads((path / "config.json").read_text(encoding="utf-8")))
    return sum(parameter.numel() for parameter in model.parameters())


def _is_of_transformers(cls: type) -> bool:
    import transformers

    return issubclass(cls, transformers.PreTrainedModel)


def _name_of_dtype() -> str:
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
