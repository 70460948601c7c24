"""Runs a prediction: from a detector and a folder of images to rows, pictures and crops."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import torch

from anomalib_synth.images import allow_large_images
from anomalib_synth.prediction.pictures import cut_crop, draw_picture
from anomalib_synth.prediction.reading import BatchReader, KnownFile, LoadedImage, UnreadableFile
from anomalib_synth.prediction.regions import locate_region
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anomalib_synth.images import WhitePoint
    from anomalib_synth.prediction.detector import Detector, DetectorOutput
    from anomalib_synth.prediction.journal import Journal
    from anomalib_synth.prediction.watching import FileSource, StopRequest

Pictures = Literal["defects", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How images are judged; see :func:`anomalib_synth.commands.predict.predict`.

    Args:
        pictures: Of which images pictures and crops are written.
        crop: Least side of a crop in pixels, >= 16.
        batch_size: Largest number of images judged at once, >= 1.

    Raises:
        ValueError: If a value is out of its range.
    """

    pictures: Pictures = "defects"
    crop: int = 128
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, least in (("crop", 16), ("batch_size", 1)):
            if getattr(self, name) < least:
                msg = f"`{name}` must be >= {least}, got {getattr(self, name)}."
                raise ValueError(msg)


@dataclass
class PredictionSummary:
    """The result of a run in numbers.

    Args:
        counts: Number of images judged ``good`` and ``defect``, those of an earlier run included.
        known: Number of images that an earlier run judged.
        failed: Reason by name of the images that could not be judged.
        judged: Number of images that this run judged.
        seconds: Time of the run, without loading the detector.
    """

    counts: Counter[str] = field(default_factory=Counter)
    known: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    judged: int = 0
    seconds: float = 0.0

    @property
    def status(self) -> int:
        """The exit status: 4 if some image could not be judged, else 3 if a defect was found, else 0."""
        return 4 if self.failed else 3 if self.counts["defect"] else 0


class Prediction:
    """Judges images, and writes rows, pictures and crops.

    Args:
        detector: The detector.
        journal: Takes the rows; opened.
        settings: How images are judged, and which pictures are written.
        white_point: White of images of more than 8 bits.
        stop: Ends the run.
        say: Called with each row, and with None for an image that an earlier run judged.
    """

    def __init__(
        self,
        detector: Detector,
        journal: Journal,
        settings: PredictionSettings,
        *,
        white_point: WhitePoint,
        stop: StopRequest,
        say: Callable[[dict[str, Any] | None], None] = lambda row: None,
    ) -> None:
        self.summary = PredictionSummary()
        self._detector = detector
        self._journal = journal
        self._settings = settings
        self._white_point = white_point
        self._stop = stop
        self._say = say
        self._started = 0.0

    def run(self, source: FileSource) -> PredictionSummary:
        """Judge the images of a source until it has no more, or is stopped.

        Raises:
            ValueError: If the detector gives no usable scores, or a batch does not fit into memory.
            KeyboardInterrupt: At the second Ctrl-C; the first one ends the run after the current batch.
        """
        reading = BatchReader(
            fit=self._detector.fit,
            white_point=self._white_point,
            is_known=lambda file, content: bool(self._journal.find_verdict(file, content)),
            skip=self._skip,
            batch_size=self._settings.batch_size,
            stop=self._stop,
        )
        began = time.perf_counter()
        try:
            with allow_large_images(), self._stop.on_signal():
                self._detector.judge(self._timed(reading.batches(source)), self._take)
        except torch.OutOfMemoryError as error:
            size = self._settings.batch_size
            msg = f"`batch_size` {size} takes more memory than the device has. Give a smaller one."
            raise ValueError(msg) from error
        self.summary.seconds = time.perf_counter() - began
        return self.summary

    def _timed(self, batches: Iterator[list[LoadedImage]]) -> Iterator[list[LoadedImage]]:
        for batch in batches:
            self._started = time.perf_counter()
            yield batch

    def _take(self, batch: list[LoadedImage], findings: list[DetectorOutput]) -> None:
        seconds = (time.perf_counter() - self._started) / len(batch)
        rows = [self._describe(shown, finding, seconds) for shown, finding in zip(batch, findings, strict=True)]
        self._journal.add(rows)
        for row in rows:
            self.summary.judged += 1
            self.summary.counts[row["verdict"]] += 1
            self.summary.failed.pop(row["file"], None)
            self._say(row)

    def _describe(self, shown: LoadedImage, finding: DetectorOutput, seconds: float) -> dict[str, Any]:
        """Return the row of an image, and write its picture and crop."""
        size = (shown.pixels.shape[0], shown.pixels.shape[1])
        view = self._detector.view(size) if finding.anomaly_map is not None else None
        place = locate_region(finding, view, size)
        picture = crop = None
        if self._settings.pictures == "all" or (self._settings.pictures == "defects" and finding.is_defect):
            picture = self._write(shown, "pictures", ".jpg", draw_picture(shown.pixels, place, view))
            if place is not None:
                crop = self._write(shown, "crops", ".png", cut_crop(shown.pixels, place.box, self._settings.crop))
        about = self._detector.about
        return {
            **_head(shown.file.name, shown.content, "defect" if finding.is_defect else "good"),
            "score": finding.score,
            "threshold": about.threshold,
            "raw_score": finding.raw_score,
            "raw_threshold": about.raw_threshold,
            "box": None if place is None else list(place.box),
            "peak": None if place is None else list(place.peak),
            "seconds": round(seconds, 6),
            "picture": picture,
            "crop": crop,
            "reason": None,
        }

    def _write(self, shown: LoadedImage, folder: str, suffix: str, data: bytes) -> str:
        name = self._journal.name_picture(shown.file.name, shown.content, folder, suffix)
        write_whole(self._journal.out / name, data)
        return name

    def _skip(self, found: KnownFile | UnreadableFile) -> None:
        name = found.file.name
        if isinstance(found, KnownFile):
            self.summary.known += 1
            self.summary.counts[self._journal.find_verdict(name, found.content)] += 1
            self._say(None)
            return
        row = {
            **_head(name, found.content, "unreadable"),
            **dict.fromkeys(("score", "threshold", "raw_score", "raw_threshold", "box", "peak", "seconds")),
            **dict.fromkeys(("picture", "crop")),
            "reason": found.reason,
        }
        self.summary.failed[name] = found.reason
        if not self._journal.has_failed(name, found.content, found.reason):
            self._journal.add([row])
        self._say(row)


def _head(file: str, content: str, verdict: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"file": file, "content": content, "verdict": verdict, "time": now}
