"""Collects the examples a detector is taught from, by its training configuration: the slow part, done once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchvision.tv_tensors import Image

from anomalib_synth.calibration.held_out import list_readable
from anomalib_synth.calibration.training_run import read_config
from anomalib_synth.callbacks import RealDefectsCallback, SynthesisCallback
from anomalib_synth.data.held_out import normal_rows
from anomalib_synth.data.normals import model_resize
from anomalib_synth.defects import DEFECT, RealDefect
from anomalib_synth.detectors.discriminative_padim.normals import fingerprint
from anomalib_synth.functional.field_of_view import cover
from anomalib_synth.generators import AnomalyGenerator, RuleBasedGenerator
from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.generators.seeding import derive_seeds, image_key
from anomalib_synth.host.from_config import build_object
from anomalib_synth.images import digest_images, read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anomalib.data import AnomalibDataModule
    from lightning.pytorch import Callback

    from anomalib_synth.detectors.discriminative_padim.lightning_model import DiscriminativePadim
    from anomalib_synth.learning.example_memory import ExampleMemory
    from anomalib_synth.learning.examples import Example, Role

_DRAWN, _PROBES = 400, 144  # defects drawn on training normals, and on held-out good images
_MAX_NORMALS = 256  # to prepare the generator with
_TRIES = 3


@dataclass
class TeachingData:
    """The data of a run that its detector can be taught from.

    Args:
        normals: Normals that the detector was trained on.
        good: Good images that it was not trained on.
        generator: The generator of its defects.
        defects: Real defects that were in its batches.
        known: Digests of ``normals`` and ``good``.
        datamodule: The run's datamodule, set up.
    """

    normals: list[Path]
    good: list[Path]
    generator: AnomalyGenerator
    defects: list[RealDefect] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    datamodule: AnomalibDataModule | None = None


def find_teaching_data(config: Path, module: DiscriminativePadim, normals: Path | None) -> TeachingData:
    """Build a run's datamodule and callbacks from its configuration, and list their images.

    Args:
        config: The configuration of `anomalib train`.
        module: The detector.
        normals: Folder of good images that were held out, None for the validation set of the run.

    Raises:
        ValueError: If the images are not those that the detector was trained on, or no good image was held out.
    """
    from anomalib.data import AnomalibDataModule
    from lightning.pytorch import Callback

    content = read_config(config)
    datamodule = build_object(AnomalibDataModule, content.get("data"), "The configuration's `data`")
    datamodule.prepare_data()
    datamodule.setup()
    callbacks = [
        build_object(Callback, section, "The configuration's `callbacks`")
        for section in _ours((content.get("trainer") or {}).get("callbacks"))
    ]
    trained = [Path(path) for path in sorted(set(normal_rows(datamodule.train_data).image_path))]
    if fingerprint(image_key(path) for path in trained) != int(module.model.fingerprint):
        msg = (
            f"`detector` was trained on other images than {config} names now: they were added, taken away or moved, or "
            "its datamodule splits them at random (it has no `seed`), so that nobody knows which were held out. Put "
            "them back, or train again with a `seed` in the datamodule."
        )
        raise ValueError(msg)
    good = _held_out(datamodule) if normals is None else list_readable("normals", normals)
    known = set(digest_images(trained))
    held_out = _distinct(good, known)
    good = list(held_out.values())
    if not good:
        msg = (
            f"`normals` must name a folder of good images that the detector was not trained on: the run of {config} "
            "held none out. The threshold is set, and false alarms are counted, on them."
        )
        raise ValueError(msg)
    real = _find(callbacks, RealDefectsCallback)
    defects = [] if real is None else real.list_defects()
    return TeachingData(trained, good, _find_generator(callbacks), defects, known | {*held_out}, datamodule)


def count_work(teaching: TeachingData) -> int:
    """Return the number of images that :func:`collect` looks at."""
    return len(teaching.normals) + len(teaching.good) + len(teaching.defects) + _DRAWN + _PROBES


def collect(
    memory: ExampleMemory,
    module: DiscriminativePadim,
    teaching: TeachingData,
    *,
    seed: int,
    advance: Callable[[int], None],
) -> None:
    """Fill a memory; examples that it has already are not computed again.

    Args:
        memory: The memory.
        module: The detector.
        teaching: The data to teach from.
        seed: Seed of the defects that are drawn.
        advance: Called with a number of images when they are done.
    """
    read = TrainingReader(module)
    for path in teaching.normals:
        memory.add("normal", path.name, read(path))
        advance(1)
    for path in teaching.good:
        memory.add("good", str(path), read(path))
        advance(1)
    for defect in teaching.defects:
        add_defect(memory, "trained_defect", defect, read)
        advance(1)
    shown = evenly_spread(teaching.normals, _MAX_NORMALS)
    teaching.generator.prepare(read(path) for path in shown)
    for image, source, mask, *_ in draw(teaching.generator, teaching.normals, _DRAWN, read, seed, advance=advance):
        memory.add("drawn", "", image, marks=mask * DEFECT, source=source)
    found = draw(teaching.generator, teaching.good, _PROBES, read, seed + 1, advance=advance)
    for image, _, mask, family, path in found:
        memory.add("probe", family, image, marks=mask * DEFECT, drawn_on=str(path))
    memory.mark_complete()


def draw(
    generator: AnomalyGenerator,
    files: Sequence[Path],
    count: int,
    read: Callable[[Path], torch.Tensor],
    seed: int,
    *,
    advance: Callable[[int], None],
) -> Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor, str, Path]]:
    """Yield image and source (3, H, W), mask (H, W) uint8 in {0, 1}, family and file of defects drawn on files in turn.

    A defect that fails its checks three times is left out, so there may be fewer than ``count``.
    """
    for repeat in range(count):
        path = files[repeat % len(files)]
        source = read(path)
        for attempt in range(_TRIES):
            seeds = derive_seeds(seed, attempt, [image_key(path)], repeat)
            sample = generator(source[None], seeds=seeds, **generator.name_images([path]))
            if bool(sample.accepted[0]):
                mask = (sample.mask[0, 0] > 0).to(torch.uint8)
                yield sample.image[0], sample.source[0], mask, sample.provenance[0].family, path
                break
        advance(1)


def add_defect(memory: ExampleMemory, role: Role, defect: RealDefect, read: Callable[[Path], torch.Tensor]) -> Example:
    """Add a real defect with its marks to a memory."""
    image = read(defect.image)
    marks = cover(torch.from_numpy(defect.read_marks()), (image.shape[-2], image.shape[-1]))
    return memory.add(role, str(defect.image), image, marks=marks, certain=defect.kind == "mask")


class TrainingReader:
    """Reads images at the size at which the run drew defects on them: after the resize of the model's transform."""

    def __init__(self, module: DiscriminativePadim) -> None:
        self._resize = model_resize(module)

    def __call__(self, path: Path) -> torch.Tensor:
        """Return an image, (3, H, W) in [0, 1]."""
        image = Image(read_tensor(path, "data"))
        image = image if self._resize is None else self._resize(image)
        return image.as_subclass(torch.Tensor).clamp(0, 1)


def _ours(listed: Any) -> list[Any]:
    """Return the sections of callbacks that bring defects."""
    sections = listed if isinstance(listed, list) else [] if listed is None else [listed]
    names = {SynthesisCallback.__name__, RealDefectsCallback.__name__}
    return [
        section
        for section in sections
        if isinstance(section, dict) and str(section.get("class_path")).rpartition(".")[2] in names
    ]


def _find(callbacks: Iterable[Callback], kind: type) -> Any:
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def _find_generator(callbacks: Iterable[Callback]) -> AnomalyGenerator:
    synthesis = _find(callbacks, SynthesisCallback)
    return RuleBasedGenerator() if synthesis is None or synthesis.generator is None else synthesis.generator


def _held_out(datamodule: AnomalibDataModule) -> list[Path]:
    """Return the good images of a run's validation set, and those that defects were drawn on for it."""
    samples = getattr(getattr(datamodule, "val_data", None), "samples", None)
    if samples is None:
        return []
    good = set(samples.image_path[samples.label_index == 0])
    if "source_path" in samples:
        good |= {path for path in samples.source_path if isinstance(path, str) and path}
    return sorted(map(Path, good))


def _distinct(files: Sequence[Path], known: set[str]) -> dict[str, Path]:
    """Return one file by digest for each image, without those whose digest is known."""
    contents: dict[str, Path] = {}
    for content, path in zip(digest_images(files), files, strict=True):
        if content not in known:
            contents.setdefault(content, path)
    return contents
