"""Models, callbacks and datamodules from plain ``{class_path, init_args}``, with errors that name the entry."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.host.from_config import build_object, check_object
from anomalib_synth.images import ImageSize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anomalib.data import AnomalibDataModule
    from anomalib.models import AnomalibModule
    from anomalib.pre_processing import PreProcessor
    from lightning.pytorch import Callback

Kind = Literal["model", "callback", "data"]


def check_section(kind: Kind, name: str, section: Mapping[str, Any]) -> None:
    """Refuse a section whose class or arguments do not exist; nothing is built.

    Raises:
        ValueError: If they do not exist; the message names the entry.
    """
    check_object(_base(kind), _plain(section), f"`{name}`")


def build_datamodule(name: str, section: Mapping[str, Any]) -> AnomalibDataModule:
    """Return the datamodule of a section; nothing is read or downloaded yet.

    Raises:
        ValueError: If it cannot be built.
    """
    return build_object(_base("data"), _plain(section), f"`data.{name}`")


def build_callbacks(name: str, sections: Sequence[Mapping[str, Any]], *, seed: int) -> list[Callback]:
    """Return the callbacks of a synthesis; those that take a ``seed`` and are not given one get this one.

    Raises:
        ValueError: If one cannot be built.
    """
    return [
        build_object(_base("callback"), _plain(_with_seed(section, seed)), f"`synthesis.{name}[{number}]`")
        for number, section in enumerate(sections)
    ]


def build_model(name: str, section: Mapping[str, Any], *, image_size: int | str | None) -> AnomalibModule:
    """Return the model of a section, without post-processor, evaluator and visualizer: raw scores are compared.

    Args:
        name: Name of the model.
        section: ``{class_path, init_args}``, and ``normalise: {mean, std}`` if the statistics differ.
        image_size: Size in pixels of what it sees: the side of a square, or height x width; None keeps its
            pre-processor.

    Raises:
        ValueError: If it cannot be built.
    """
    model = build_object(_base("model"), _plain(section), f"`models.{name}`")
    size = ImageSize.parse(image_size)
    if size is not None:
        height, width = (size.height, size.width) if size.height else (size.long_side, size.long_side)
        model.pre_processor = model.configure_pre_processor(image_size=(height, width))
    if "normalise" in section:
        _normalise(name, model.pre_processor, section["normalise"])
    model.post_processor = model.evaluator = model.visualizer = None
    return model


def _normalise(name: str, pre_processor: PreProcessor | None, statistics: Mapping[str, Any]) -> None:
    """Put other statistics into a pre-processor's normalisation."""
    from torchvision.transforms.v2 import Normalize

    steps = getattr(getattr(pre_processor, "transform", None), "transforms", [])
    found = [step for step in steps if isinstance(step, Normalize)]
    if not found:
        msg = f"`models.{name}` has no normalisation to change. Remove its `normalise`."
        raise ValueError(msg)
    found[0].mean, found[0].std = list(statistics["mean"]), list(statistics["std"])


def _with_seed(section: Mapping[str, Any], seed: int) -> dict[str, Any]:
    module, _, attribute = section["class_path"].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    arguments = dict(section.get("init_args") or {})
    if "seed" in parameters:
        arguments.setdefault("seed", seed)
    return {"class_path": section["class_path"], "init_args": arguments}


def _base(kind: Kind) -> type:
    if kind == "model":
        importlib.import_module("anomalib.models")
        from anomalib.models import AnomalibModule

        return AnomalibModule
    if kind == "data":
        from anomalib.data import AnomalibDataModule

        return AnomalibDataModule
    from lightning.pytorch import Callback

    return Callback


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section without what stands beside the class and its arguments."""
    return {key: value for key, value in section.items() if key in {"class_path", "init_args"} and value is not None}
