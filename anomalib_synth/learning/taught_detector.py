"""A detector that is being taught: its memory, its scores on the memory, and the new version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.checkpoints import load_model
from anomalib_synth.calibration.device import choose_device
from anomalib_synth.calibration.held_out import CALIBRATION, list_named
from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.calibration.statistics import conformal_threshold, least_count
from anomalib_synth.data.held_out import LEARNED, check_not_held_out, remember_learned
from anomalib_synth.defects import is_store, list_defects
from anomalib_synth.detectors.discriminative_padim import DiscriminativePadim
from anomalib_synth.detectors.discriminative_padim.reference import ReferenceNormals
from anomalib_synth.host.thresholds import (
    Level,
    post_processor_settings,
    read_image_threshold,
    write_thresholds,
)
from anomalib_synth.images import check_host_agrees, digest_images
from anomalib_synth.learning.changes import DetectorScores, LearningChanges
from anomalib_synth.learning.collecting import TrainingReader, add_defect, collect, count_work, find_teaching_data
from anomalib_synth.learning.example_memory import ExampleMemory
from anomalib_synth.learning.scoring import score_examples
from anomalib_synth.learning.stored import list_kept
from anomalib_synth.learning.training import HeadTrainingSettings, train_heads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.progress import Progress

    from anomalib_synth.defects import RealDefect
    from anomalib_synth.learning.examples import Example, Role
    from anomalib_synth.learning.versions import DetectorFolder, Version

_DEFAULT_RATE = 0.05
_LEARNING_RATE = 0.0005  # a quarter of that of the first training


class TaughtDetector:
    """A detector of a folder, at its current version.

    Args:
        folder: The folder.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        seed: Seed of the order, of the drawn defects and of the halves of the held-out images.

    Raises:
        ValueError: If the detector is not a trained DiscriminativePadim.
    """

    def __init__(self, folder: DetectorFolder, *, accelerator: str, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._checkpoint = folder.read_current()
        module, _ = load_model(str(folder.config), folder.current, self._checkpoint)
        if not isinstance(module, DiscriminativePadim):
            msg = (
                f"`detector` must be a DiscriminativePadim, got {type(module).__name__}: others do not learn from kept "
                "features. Train them again with RealDefectsCallback or RealDefectGenerator."
            )
            raise ValueError(msg)
        module.load_state_dict(self._checkpoint["state_dict"])
        self._module = module.to(choose_device(accelerator)).eval()
        self._memory = ExampleMemory(folder.memory, module)
        self._halves: tuple[list[Example], list[Example]] = ([], [])
        self._missed: list[RealDefect] = []
        self._false_alarms: list[Path] = []
        self._digests: list[str] = []  # of both
        self._shown: dict[str, str] = {}  # files of the real defects that look-alikes among them show, by digest

    @property
    def calibrated_rate(self) -> float | None:
        """The false-alarm rate that the detector was calibrated for, None if it was not."""
        return (self._checkpoint.get(CALIBRATION) or {}).get("target_false_alarm_rate")

    @property
    def forgotten(self) -> int:
        """Number of images learned up to the current version that the memory has lost."""
        return len(self._learned()) - len(self.earlier())

    @property
    def measured(self) -> frozenset[bytes]:
        """Digests of the held-out good images that set no threshold."""
        return frozenset(example.key for example in self._halves[1])

    def collect(self, normals: Path | None, progress: Progress) -> None:
        """Fill the memory, unless that was done before."""
        self._teaching = find_teaching_data(self._folder.config, self._module, normals)
        task = progress.add_task("Looking at what it was taught from", total=count_work(self._teaching))
        there = {example.name for example in self._memory.of("good")}
        if not self._memory.is_complete or not there.issuperset(map(str, self._teaching.good)):
            collect(
                self._memory, self._module, self._teaching, seed=self._seed,
                advance=lambda count: progress.advance(task, count),
            )  # fmt: skip
        progress.update(task, visible=False)
        good = set(map(str, self._teaching.good))  # of another call's `normals`, nothing is measured on
        self._memory.forget("good", {each.key for each in self._memory.of("good") if each.name not in good})
        self._memory.forget("probe", {each.key for each in self._memory.of("probe") if each.drawn_on not in good})
        self._split()

    def list_new(self, missed: Path | None, marks: Path | None, false_alarms: Path | None) -> None:
        """List the images to learn, before anything that takes long.

        Raises:
            ValueError: If a folder is missing or holds no image, or an image or a mark cannot be read.
        """
        for argument, place in (("missed", missed), ("false_alarms", false_alarms), ("marks", marks)):
            if place is not None and not place.exists():
                msg = f"`{argument}` must be a file or a folder, got {str(place)!r}, which is not there."
                raise ValueError(msg)
        if missed is not None and is_store(missed):
            if marks is not None:
                msg = f"`marks` must be left out, got {str(marks)!r}: `missed` is a store, which has its own masks."
                raise ValueError(msg)
            self._missed, self._shown = list_kept(missed)
        elif missed is not None:
            self._missed = list_defects([missed] if missed.is_file() else missed, marks=marks, name="missed")
        if false_alarms is not None:
            is_file = false_alarms.is_file()
            self._false_alarms = [false_alarms] if is_file else list_named(false_alarms, "false_alarms")
        shown = read_kept_white_point(self._folder.current, self._checkpoint)
        check_host_agrees([defect.image for defect in self._missed], "missed", shown=shown)
        check_host_agrees(self._false_alarms, "false_alarms", shown=shown)

    def look(self, progress: Progress) -> list[Example]:
        """Return the examples of the images to learn.

        Raises:
            ValueError: If the run trained on one of the defects as good or tests on an image to learn, or an image is
                to be learned both as a defect and as good.
        """
        missed = [defect.image for defect in self._missed]
        self._digests = [*digest_images(missed), *digest_images(self._false_alarms)]
        self._check_new(missed)
        read = TrainingReader(self._module)
        defects = progress.track(self._missed, description="Looking at what it missed")
        good = progress.track(self._false_alarms, description="Looking at false alarms")
        return [
            *(add_defect(self._memory, "defect", defect, read) for defect in defects),
            *(self._memory.add("false_alarm", str(path), read(path)) for path in good),
        ]

    def forget_measured(self, new: Sequence[Example]) -> list[Example]:
        """Take the images that are learned out of the held-out good images, and return those that were taken out."""
        learned = {example.key for example in [*new, *self.earlier()]}
        found = [example for example in self._memory.of("good") if example.key in learned]
        self._memory.forget("good", {example.key for example in found})
        names = {example.name for example in found}
        self._memory.forget("probe", {example.key for example in self._memory.of("probe") if example.drawn_on in names})
        self._split()
        return found

    def choose_rate(self, wanted: float | None) -> float:
        """Return the false-alarm rate to set the threshold for.

        It is the one asked for, else the calibrated one or 5 %, but no less than the held-out images allow.

        Raises:
            ValueError: If the rate that was asked for needs more held-out images than there are.
        """
        count = len(self._halves[0])
        least = 1 / (count + 1)
        if wanted is None:
            return max(self.calibrated_rate or _DEFAULT_RATE, least)
        if count < least_count(wanted):
            msg = (
                f"`false_alarm_rate` {wanted:g} takes {2 * least_count(wanted)} held-out good images (half of them set "
                f"the threshold, half measure it), got {count + len(self._halves[1])}. Give more `normals`, or ask for "
                f"a rate of at least {least + 5e-4:.3f}."
            )
            raise ValueError(msg)
        return wanted

    def learn(self, new: Sequence[Example], *, rate: float, steps: int, progress: Progress) -> LearningChanges:
        """Train the heads, set the threshold, and compare the detector before and after.

        Args:
            new: Examples to learn now.
            rate: Target false-alarm rate in (0, 1).
            steps: Number of training steps.
            progress: Shows how far it is.
        """
        network, memory = self._module.model, self._memory
        defects = [*memory.of("trained_defect"), *self._together("defect", new)]
        alarms = self._together("false_alarm", new)
        examples = [*defects, *alarms, *memory.of("good", "probe")]
        task = progress.add_task("Learning", total=steps + 2 * len(examples))

        def scores() -> list[Any]:
            return score_examples(network, memory, examples, advance=lambda count: progress.advance(task, count))

        before = DetectorScores(threshold=read_image_threshold(self._checkpoint), scores=scores())
        reference = ReferenceNormals(network, memory.features, memory.normals())
        looks_from = 0.0 if bool(network.has_heads) else 0.4
        settings = HeadTrainingSettings(
            steps=steps, learning_rate=_LEARNING_RATE, seed=self._seed, looks_from=looks_from
        )
        train_heads(
            network, memory, reference, settings,
            defects=defects, false_alarms=alarms, advance=lambda: progress.advance(task),
        )  # fmt: skip
        found = scores()
        by_key = {example.key: score for example, score in zip(examples, found, strict=True)}
        chosen = [by_key[example.key] for example in self._halves[0]]
        levels = {
            kind: Level(
                threshold=conformal_threshold([getattr(score, name) for score in chosen], rate),
                low=min(getattr(score, name) for score in found),
                high=max(getattr(score, name) for score in found),
            )
            for kind, name in (("image", "image"), ("pixel", "peak"))
        }
        self._checkpoint["state_dict"] = {
            name: value.detach().cpu().clone() for name, value in self._module.state_dict().items()
        }
        write_thresholds(self._checkpoint, image=levels["image"], pixel=levels["pixel"])
        after = DetectorScores(threshold=levels["image"].threshold, scores=found)
        new_keys = frozenset(example.key for example in new)
        return LearningChanges(examples=examples, before=before, after=after, new=new_keys, rate=rate)

    def save(self, changes: LearningChanges) -> Version:
        """Write the new version."""
        remember_learned(self._checkpoint, [*self._digests, *self._shown])
        own = {
            LEARNED: self._checkpoint[LEARNED],
            CALIBRATION: {"target_false_alarm_rate": changes.rate, "by": "learn"},
            **post_processor_settings(self._checkpoint),
        }
        self._checkpoint |= own
        about = {**changes.to_dict(self.measured), "checkpoint": own}
        return self._folder.save(self._checkpoint["state_dict"], self._checkpoint, about)

    def _split(self) -> None:
        """Halve the held-out good images: one half sets the threshold, the other measures it."""
        good = sorted(self._memory.of("good"), key=lambda example: example.key)
        self._halves = (good[::2], good[1::2])

    def earlier(self) -> list[Example]:
        """Return the examples learned up to the current version; of an image learned twice, the last role counts."""
        learned = self._learned()
        return [each for each in self._memory.of("defect", "false_alarm") if learned.get(each.key) == each.role]

    def _learned(self) -> dict[bytes, Role]:
        """Return the last role of each image learned up to the current version, by digest."""
        rows = [row for version in self._folder.versions for row in version.about["learned"]]
        return {bytes.fromhex(row["key"]): row["role"] for row in rows}

    def _together(self, role: Role, new: Sequence[Example]) -> list[Example]:
        again = {example.key for example in new}
        earlier = [example for example in self.earlier() if example.key not in again]
        return [example for example in [*earlier, *new] if example.role == role]

    def _check_new(self, missed: Sequence[Path]) -> None:
        """Refuse defects that the run shows as good or tests on, and images that are named as both.

        Raises:
            ValueError: If there are any; the message names them.
        """
        count = len(missed)
        both = [str(file) for file, each in zip(missed, self._digests, strict=False) if each in self._digests[count:]]
        if both:
            names = ", ".join(both[:3])
            msg = f"`missed` and `false_alarms` must not hold the same image, got {names}. Leave it in one of them."
            raise ValueError(msg)
        known = self._teaching.known
        contents = [*zip(self._digests, map(str, missed), strict=False), *self._shown.items()]
        shown = [file for content, file in contents if content in known]
        if shown:
            msg = (
                f"`missed` must not hold images that the detector knows as good, got {len(shown)}: "
                f"{', '.join(shown[:3])}. Take them out of one of the two."
            )
            raise ValueError(msg)
        for images in (missed, self._shown):
            check_not_held_out(self._teaching.datamodule, images, "missed", splits=("val", "test"))
        check_not_held_out(self._teaching.datamodule, self._false_alarms, "false_alarms", splits=("test",))
