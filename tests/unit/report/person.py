"""A person who marks images, for tests."""

from __future__ import annotations

from pathlib import Path

from anomalib_synth.images import ImageReader
from anomalib_synth.report.marking_files import MarkedFolder
from anomalib_synth.report.marking_pictures import MarkingPictures
from anomalib_synth.report.marking_session import MarkingSession


def open_session(images: Path, out: Path | None = None) -> MarkingSession:
    folder = MarkedFolder.open(images, out)
    pictures = MarkingPictures(folder, ImageReader())
    return MarkingSession(folder, measure=pictures.measure, outline=pictures.outline)


class Person:
    """Marks one image, and knows what the page last showed."""

    def __init__(self, session: MarkingSession, place: int = 0) -> None:
        self.session = session
        self.image = list(session.folder.listed.values())[place]
        self.look()

    def look(self) -> dict:
        self.shown = self.session.describe(self.image.id)
        return self.shown

    def do(self, type_name: str = "dent", **edit) -> dict:
        self.session.edit(self.image.id, edit, seen=self.shown["version"], type_name=type_name)
        return self.look()

    def step(self, *, back: bool) -> dict:
        (self.session.undo if back else self.session.redo)(self.image.id, seen=self.shown["version"])
        return self.look()

    def files(self) -> dict[str, bytes]:
        folder = self.image.mask.parent
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in {".json", ".bmp"}} | {
            file.name: file.read_bytes() for file in folder.glob("*_mask.*")
        }
