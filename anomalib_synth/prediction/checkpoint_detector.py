"""Detectors that are anomalib models in Python: built from a checkpoint, or unpickled from a torch export."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.calibration.device import choose_device
from anomalib_synth.calibration.held_out import CALIBRATION
from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.calibration.predict_loop import as_it_is, first_resize, run_predict_loop
from anomalib_synth.calibration.training_run import Inference, find_config, read_inference, tile
from anomalib_synth.data.normals import model_transform
from anomalib_synth.functional.field_of_view import find_view
from anomalib_synth.host.thresholds import (
    check_post_processor,
    give_raw_scores,
    read_image_threshold,
    read_model_thresholds,
    read_normalised_threshold,
)
from anomalib_synth.images import digest_file
from anomalib_synth.prediction.detector import DetectorInfo, DetectorOutput, check_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback

    from anomalib_synth.prediction.reading import LoadedImage

_ENDLESS = 2**40  # batches


def open_checkpoint(path: Path, *, model: str | None, tiler: dict[str, Any] | None, accelerator: str) -> ModelDetector:
    """Return the detector of a checkpoint, which scores as `calibrate` and `anomalib predict` do.

    Args:
        path: The checkpoint.
        model: Class path or configuration of the model, None to look for it beside the checkpoint.
        tiler: Settings of anomalib's tiler, ``{}`` for no tiler, None to look for them in the configuration.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Raises:
        ValueError: If the checkpoint cannot be read or has no threshold, or was calibrated with another tiler,
            precision or callbacks than are given or found here.
    """
    loaded = read_checkpoint(path)
    calibration = loaded.get(CALIBRATION) or {}
    if model is None and find_config(path) is None:
        model = _find_class(calibration.get("model"))
    network, config = load_model(model, path, loaded)
    inference = read_inference(config) if config and tiler is None else tile(tiler or {})
    expected = calibration.get("inference")
    if isinstance(expected, str) and expected != inference.describe():
        msg = (
            f"`detector` {str(path)!r} must be run as it was calibrated ({expected or 'as it is'}), but the settings "
            f"found here differ ({inference.describe() or 'as it is'}). Give the training configuration as `model`, "
            "or the tiler's settings as `tiler`, {} for no tiler."
        )
        raise ValueError(msg)
    return ModelDetector(
        network,
        path,
        kind="checkpoint",
        checkpoint=path,
        loaded=loaded,
        inference=inference,
        accelerator=accelerator,
    )


def open_torch_export(path: Path, *, trust: bool, accelerator: str) -> ModelDetector:
    """Return the detector of anomalib's torch export, if the file is trusted: a pickle may run any code.

    Raises:
        ValueError: If the file is not trusted, holds no model of anomalib, or the model has no threshold.
    """
    if not trust:
        msg = (
            f"`detector` {str(path)!r} is a torch export, a pickle: whoever made it can have any program run when it "
            "is read. Use the checkpoint, or the OpenVINO or ONNX export; or say `--trust` if you made it yourself."
        )
        raise ValueError(msg)
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)  # the user said so
    except Exception as error:  # a pickle can raise anything
        msg = f"`detector` must be a torch export of anomalib, got {str(path)!r}: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    from anomalib.models import AnomalibModule

    network = content.get("model") if isinstance(content, dict) else None
    if not isinstance(network, AnomalibModule):
        msg = f"`detector` must be a torch export of anomalib, got {str(path)!r}, which holds no model of it."
        raise ValueError(msg)
    return ModelDetector(network, path, kind="torch", accelerator=accelerator)


def _find_class(name: object) -> str | None:
    """Return the class path of a model by the name of its class, None if it is of another package."""
    for module in ("anomalib.models", "anomalib_synth.models"):
        if isinstance(name, str) and hasattr(importlib.import_module(module), name):
            return f"{module}.{name}"
    return None


class ModelDetector:
    """A model of anomalib, run by the loop of `anomalib predict`.

    Args:
        network: The model.
        path: The file it was read from.
        kind: See :class:`DetectorInfo`.
        checkpoint: Checkpoint that its weights are restored from, None where the model has them already.
        loaded: Content of the checkpoint, None without one.
        inference: The tiler, callbacks and precision that the training run used.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Raises:
        ValueError: If the model has no threshold, or the device is unknown or not there.
    """

    def __init__(
        self,
        network: AnomalibModule,
        path: Path,
        *,
        kind: str,
        checkpoint: Path | None = None,
        loaded: dict[str, Any] | None = None,
        inference: Inference | None = None,
        accelerator: str = "auto",
    ) -> None:
        check_post_processor(network)
        choose_device(accelerator)
        thresholds = read_model_thresholds(network) if loaded is None else loaded
        self._network = network
        self._checkpoint = checkpoint
        self._inference = inference or Inference()
        self._accelerator = accelerator
        self._resize = first_resize(model_transform(network))
        self._views: dict[tuple[int, int], torch.Tensor | None] = {}
        self.white_point = read_kept_white_point(path, loaded)
        self.about = DetectorInfo(
            path=str(path),
            content=digest_file(path),
            kind=kind,
            model=type(network).__name__,
            threshold=read_normalised_threshold(thresholds),
            raw_threshold=read_image_threshold(thresholds),
            inference=self._inference.describe(),
        )

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """Resize an image (3, H, W) if the model's transform begins with a resize, else return it as it is."""
        return self._resize(image) if self._resize else image

    def view(self, size: tuple[int, int]) -> torch.Tensor | None:
        """Return where the pixels of an image are on the map; see :meth:`.Detector.view`."""
        if size not in self._views:
            try:
                self._views[size] = find_view(self._network.pre_processor or torch.nn.Identity(), size)
            except ValueError:
                self._views[size] = None
        return self._views[size]

    def judge(
        self, batches: Iterable[list[LoadedImage]], tell: Callable[[list[LoadedImage], list[DetectorOutput]], None]
    ) -> None:
        """Run the loop until there are no more batches."""
        from torch.utils.data import DataLoader

        pending: list[list[LoadedImage]] = []
        loader = DataLoader(_Stream(batches, pending), batch_size=None, collate_fn=as_it_is)

        def take(outputs: ImageBatch, raw: _Raw) -> None:
            batch = pending.pop(0)
            tell(batch, _read(outputs, raw, len(batch)))

        run_predict_loop(
            self._network,
            self._checkpoint,
            loader,
            _make_collector(take),
            inference=self._inference,
            accelerator=self._accelerator,
        )


class _Raw(NamedTuple):
    """Scores and maps of a batch before anomalib normalises them."""

    score: torch.Tensor | None
    anomaly_map: torch.Tensor | None


class _Stream(torch.utils.data.IterableDataset):
    """Batches as anomalib's datasets give them.

    It has a length because Lightning would otherwise draw one batch ahead, and each verdict would wait for the next
    image to arrive.
    """

    def __init__(self, batches: Iterable[list[LoadedImage]], pending: list[list[LoadedImage]]) -> None:
        self._batches = batches
        self._pending = pending

    def __len__(self) -> int:
        return _ENDLESS

    def __iter__(self) -> Iterator[ImageBatch]:
        from anomalib.data import ImageBatch
        from torchvision.tv_tensors import Image

        for batch in self._batches:
            self._pending.append(batch)
            yield ImageBatch(
                image=Image(torch.stack([shown.image for shown in batch])),
                image_path=[str(shown.file.path) for shown in batch],
            )


def _make_collector(take: Callable[[ImageBatch, _Raw], None]) -> Callback:
    """Return the callback that takes predictions out of the loop, with their raw scores and maps."""
    from lightning.pytorch import Callback

    class Collector(Callback):
        def on_predict_start(self, trainer: object, pl_module: AnomalibModule) -> None:
            post = pl_module.post_processor
            self._switches = post.enable_normalization, post.enable_thresholding
            give_raw_scores(pl_module)

        def on_predict_batch_end(
            self, trainer: object, pl_module: AnomalibModule, outputs: ImageBatch, batch: object, batch_idx: int
        ) -> None:
            post, raw = pl_module.post_processor, _Raw(outputs.pred_score, outputs.anomaly_map)
            post.enable_normalization, post.enable_thresholding = self._switches
            post.post_process_batch(outputs)
            give_raw_scores(pl_module)
            take(outputs, raw)

    return Collector()


def _read(outputs: ImageBatch, raw: _Raw, count: int) -> list[DetectorOutput]:
    scores, raws, labels = (
        [] if each is None else each.detach().float().flatten().tolist()
        for each in (outputs.pred_score, raw.score, outputs.pred_label)
    )
    maps, masks = (
        None if each is None else each.detach().float().cpu().reshape(count, *each.shape[-2:]).numpy()
        for each in (raw.anomaly_map, outputs.pred_mask)
    )
    check_scores(scores, count)
    if not len(raws) == len(labels) == count:
        msg = f"`detector` must give a score and a label for each of {count} images, got {len(raws)} and {len(labels)}."
        raise ValueError(msg)
    return [
        DetectorOutput(
            score=scores[n],
            is_defect=labels[n] > 0,
            raw_score=raws[n],
            anomaly_map=None if maps is None else maps[n],
            mask=None if masks is None else masks[n] > 0,
        )
        for n in range(count)
    ]
