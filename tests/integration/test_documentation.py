"""The documentation's site: it builds, its links lead somewhere, it knows every command and configuration, it fits."""

from __future__ import annotations

import inspect
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from anomalib_synth.cli import COMMANDS, load
from anomalib_synth.commands.configs import list_configs
from tests.integration.review_site import open_browser

ROOT = Path(__file__).parents[2]


class Anchors(HTMLParser):
    """Collects where a page can be entered, and where it leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.loads: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        target = found.get("href" if tag in {"a", "link"} else "src")
        if tag != "a" and target and "//" in target:
            self.loads.add(target)
        if target and "://" not in target and not target.startswith(("mailto:", "data:")):
            self.targets.add(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "trees")]
    result = subprocess.run(
        [*command, str(ROOT / "docs"), str(out / "html")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return out / "html"


def test_every_page_is_there(site) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.rst")]
    missing = [page for page in pages if not (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()]
    assert len(pages) > 30
    assert missing == []
    api = (site / "reference" / "api" / "generators.html").read_text(encoding="utf-8")
    assert "AutoregressiveGenerator" in api
    assert "RealDefectGenerator" in api


def test_link_leads_somewhere_when_it_is_within_the_site(site) -> None:
    pages = {page.resolve(): Anchors(page) for page in site.rglob("*.html")}
    wrong = []
    for page, found in pages.items():
        for target in found.targets:
            parts = urlsplit(target)
            name, anchor = unquote(parts.path), unquote(parts.fragment)
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].ids):
                wrong.append(f"{page.relative_to(site)}: {target}")
    assert len(pages) > 40
    assert wrong == []


def test_page_needs_no_network_when_it_is_opened(site) -> None:
    loads = {page.name: Anchors(page).loads for page in site.rglob("*.html")}
    assert {name: found for name, found in loads.items() if found} == {}
    assert "<math" in (site / "reference" / "api" / "quality.html").read_text(encoding="utf-8")


def test_every_command_is_explained_when_the_site_is_built(site) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f'id="command-{name.replace("_", "-")}"' in page
        for option in inspect.signature(load(name)).parameters:
            assert f"--{option}<" in page, f"{name} --{option}"


def test_every_configuration_is_shown_when_the_site_is_built(site) -> None:
    page = (site / "reference" / "configs.html").read_text(encoding="utf-8")
    for name in list_configs():
        assert f'id="config-{name.replace("/", "-").replace("_", "-")}"' in page, name


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_page_is_no_wider_than_the_window(site, width) -> None:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.route("http*://**", lambda route: route.abort())
        wide = []
        for file in sorted(site.rglob("*.html")):
            if "_modules" not in file.parts:
                page.goto(file.as_uri(), wait_until="domcontentloaded")
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    wide.append(str(file.relative_to(site)))
        assert wide == []
