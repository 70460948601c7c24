"""The files to judge: those of a folder as it is now, or as they arrive."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, NamedTuple, Protocol

from anomalib_synth.images import find_images, list_images
from anomalib_synth.images.listing import Listing, as_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_PATIENCE = 5  # times a file that does not change is tried before it counts as unreadable
_NAP = 0.1  # seconds between two checks for a request to stop


class ImageFile(NamedTuple):
    """A file; its ``name`` is the path relative to the folder, with forward slashes."""

    name: str
    path: Path


class FolderChange(NamedTuple):
    """What is new in a folder: files to read, and by name the reasons why others are not read."""

    files: list[ImageFile]
    foreign: dict[str, str]


class FileSource(Protocol):
    """Says which files are to be judged."""

    def looks(self) -> Iterator[FolderChange]:
        """Yield what is new at each look."""

    def give_back(self, file: ImageFile) -> bool:
        """Take back a file that could not be read; False if it is to be reported as unreadable."""


class StopRequest:
    """A request to stop; the batch that is being judged is finished first."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Have the first Ctrl-C or SIGTERM (as service managers send) ask to stop, and the next one interrupt."""
        if threading.current_thread() is not threading.main_thread():  # which alone hears signals
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class FolderSource:
    """The images of a folder as it is now, or one image.

    Args:
        images: The folder, or the file.

    Raises:
        ValueError: If the folder is not there or holds no image.
    """

    def __init__(self, images: Path) -> None:
        if images.is_file():
            self.listing = Listing({as_text(images.name): images})
        else:
            self.listing = list_images(images, "images")

    def looks(self) -> Iterator[FolderChange]:
        """Yield all files at once."""
        yield FolderChange([ImageFile(name, path) for name, path in self.listing.files.items()], self.listing.foreign)

    def give_back(self, file: ImageFile) -> bool:
        """Return False: each file is tried once."""
        return False


@dataclass
class _Seen:
    """A file at the last look; ``state`` is its size in bytes, time of change in ns and inode."""

    state: tuple[int, int, int]
    taken: bool = False
    failures: int = 0


@dataclass
class Watcher:
    """The images of a folder as they arrive; those that are there at the start count as new.

    A file is taken once two looks in a row find it the same: until then somebody may be writing it. A file that is
    changed or replaced afterwards is taken again. A file that cannot be read is tried again at the next looks, and
    counts as unreadable after five tries without a change.

    Args:
        folder: The folder.
        interval: Seconds between two looks, > 0.
        until_idle: The watch ends when nothing was new for this many seconds; None: only ``stop`` ends it.
        stop: Ends the watch.
    """

    folder: Path
    interval: float
    until_idle: float | None
    stop: StopRequest
    _seen: dict[Path, _Seen] = field(init=False, default_factory=dict)
    _foreign: set[str] = field(init=False, default_factory=set)
    _masks: set[str] = field(init=False, default_factory=set)

    def looks(self) -> Iterator[FolderChange]:
        """Yield what is new at each look, and wait between looks."""
        idle = 0.0
        while not self.stop.asked:
            look, waiting = self._look()
            if look.files or look.foreign:
                yield look
            is_quiet = not (look.files or look.foreign or waiting)
            idle = idle + self.interval if is_quiet else 0.0
            if is_quiet and self.until_idle is not None and idle >= self.until_idle:
                return
            self._wait()

    def give_back(self, file: ImageFile) -> bool:
        """Take back a file that could not be read; False once it was tried often enough without a change."""
        seen = self._seen.get(file.path)
        if seen is None:
            return False
        seen.failures += 1
        seen.taken = seen.failures >= _PATIENCE
        return not seen.taken or not file.path.exists()

    def _look(self) -> tuple[FolderChange, bool]:
        """Return what is new, and whether there are files that may still be written."""
        listing = find_images(self.folder)
        files, waiting, gone = [], False, set(self._seen)
        self._masks |= set(listing.masks)  # they stay masks when their images are moved away
        for name, path in listing.files.items():
            if name in self._masks:
                continue
            try:
                found = path.stat()
            except OSError:  # gone meanwhile
                continue
            gone.discard(path)
            state = (found.st_size, found.st_mtime_ns, found.st_ino)
            seen = self._seen.get(path)
            if seen is None or seen.state != state:
                self._seen[path] = _Seen(state)
                waiting = True
            elif not seen.taken:
                seen.taken = True
                files.append(ImageFile(name, path))
        for path in gone:
            del self._seen[path]
        foreign = {name: reason for name, reason in listing.foreign.items() if name not in self._foreign}
        self._foreign |= set(foreign)
        return FolderChange(files, foreign), waiting

    def _wait(self) -> None:
        left = self.interval
        while left > 0 and not self.stop.asked:
            sleep(min(_NAP, left))
            left -= _NAP
