"""A running review of a store, and a browser to look at it with."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from anomalib_synth.images import ImageReader
from anomalib_synth.report.application import build_application
from anomalib_synth.report.marking_application import build_marking
from anomalib_synth.report.marking_files import MarkedFolder
from anomalib_synth.report.review import listen
from anomalib_synth.report.server import make_server
from anomalib_synth.store import SampleStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp

    from anomalib_synth.report.marking_outline import Proposer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRED = "ANOMALIB_SYNTH_BROWSER_REQUIRED"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the machine's own Chromium; skip without one, unless it is required."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = f"there is no Chromium ({', '.join(BROWSERS)})"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, but {message}")
        pytest.skip(message)
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*quiet, "--disable-sync", "--no-first-run"])
        yield browser
        browser.close()


@contextmanager
def serve_store(path: Path) -> Iterator[str]:
    """Serve the review of a store from a thread; gives its address."""
    with serve_application(build_application(SampleStore.open(path))) as address:
        yield address


@contextmanager
def serve_marking(
    images: Path, out: Path | None = None, *, proposer: Proposer | None = None, of_regions: bool = False
) -> Iterator[str]:
    """Serve the page that marks the images of a folder from a thread; gives its address."""
    folder = MarkedFolder.open(images, out, of_regions=of_regions)
    with serve_application(build_marking(folder, ImageReader(), proposer=proposer)) as address:
        yield address


@contextmanager
def serve_application(application: ASGIApp) -> Iterator[str]:
    """Serve an application from a thread; gives its address."""
    with listen("127.0.0.1", 0) as listener:
        server = make_server(application)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


class Visit:
    """A page that was opened, with everything it asked for and complained of."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": height})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, address: str) -> Page:
        """Open an address and wait for its samples."""
        self.page.goto(address)
        self.page.wait_for_selector("#grid:not([aria-busy]) .card")
        return self.page
