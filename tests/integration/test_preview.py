"""The preview's page in a real browser, and what is downloaded from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from anomalib_synth.cli import main
from anomalib_synth.store import SampleStore
from tests.conftest import save_images
from tests.contract import render_normals
from tests.integration.review_site import Visit, open_browser

if TYPE_CHECKING:
    from pathlib import Path

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
FAMILIES = ["nsa", "scratch", "dent", "hole"]


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normals")
    save_images(folder, render_normals(4, 3, 64, 160, seed=1))
    return folder


@pytest.fixture(scope="module")
def page_file(normals):
    out = normals.parent / "preview.html"
    given = f"--generator.families=[{','.join(FAMILIES)}]"
    strength = "--generator.strength=[0.9,1.0]"
    main(["preview", f"--normals={normals}", f"--out={out}", "--generator=RuleBasedGenerator", given, strength])
    return out


@pytest.fixture
def visit(browser, page_file):
    visit = Visit(browser)
    visit.page.goto(page_file.as_uri())
    yield visit
    visit.page.close()


def read_yaml(page, name: str) -> dict:
    return yaml.safe_load(page.locator(f"pre[data-file='{name}']").text_content())


def read_families(page) -> list[str]:
    return read_yaml(page, "generator.yaml")["init_args"]["families"]


def download(page, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Download {name}").click()
    assert waiting.value.suggested_filename == name
    waiting.value.save_as(folder / name)
    return folder / name


def test_configuration_follows_the_ticks_when_families_are_unticked(visit) -> None:
    page = visit.page
    assert read_families(page) == FAMILIES
    page.get_by_role("checkbox", name="dent", exact=True).uncheck()
    page.get_by_role("checkbox", name="nsa", exact=True).uncheck()
    assert read_families(page) == ["scratch", "hole"]
    sync_api.expect(page.locator("#count")).to_have_text("2 of 4 families ticked")
    callback = read_yaml(page, "synthesis.yaml")["trainer"]["callbacks+"][0]
    assert callback["class_path"] == "anomalib_synth.callbacks.SynthesisCallback"
    assert callback["init_args"]["generator"] == read_yaml(page, "generator.yaml")
    page.get_by_role("checkbox", name="nsa", exact=True).check()
    assert read_families(page) == ["nsa", "scratch", "hole"]
    assert visit.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in visit.requests)


def test_downloaded_generator_draws_the_ticked_families_when_given_to_generate(visit, normals, tmp_path) -> None:
    visit.page.get_by_role("checkbox", name="scratch", exact=True).uncheck()
    visit.page.get_by_role("checkbox", name="nsa", exact=True).uncheck()
    file = download(visit.page, "generator.yaml", tmp_path)
    store = tmp_path / "store"
    main(["generate", f"--normals={normals}", f"--out={store}", "--num-samples=6", "--generator", str(file)])
    generator = SampleStore.open(store).settings["generator"]
    assert list(generator["init_args"]["families"]) == ["dent", "hole"]
    assert generator["init_args"]["strength"] == [0.9, 1.0]
    assert {record.family for record in SampleStore.open(store).records} <= {"dent", "hole", ""}
    overlay = yaml.safe_load(download(visit.page, "synthesis.yaml", tmp_path).read_text())
    assert overlay["trainer"]["callbacks+"][0]["init_args"]["generator"] == yaml.safe_load(file.read_text())


def test_nothing_can_be_taken_when_no_family_is_ticked(visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Tick none").click()
    sync_api.expect(page.get_by_role("alert")).to_be_visible()
    for button in page.locator("[data-copy], [data-download]").all():
        sync_api.expect(button).to_be_disabled()
    page.get_by_role("button", name="Tick all").click()
    sync_api.expect(page.get_by_role("alert")).to_be_hidden()
    assert read_families(page) == FAMILIES


def test_text_is_on_the_clipboard_when_copied(visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy generator.yaml").click()
    sync_api.expect(visit.page.locator("#count")).to_have_text("Copied generator.yaml")
    assert visit.page.evaluate("navigator.clipboard.readText()") == visit.page.locator("pre").first.text_content()


def test_text_is_selected_when_the_browser_refuses_to_copy(visit) -> None:
    visit.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    visit.page.get_by_role("button", name="Copy generator.yaml").click()
    sync_api.expect(visit.page.locator("#count")).to_contain_text("press Ctrl+C")
    assert "class_path" in visit.page.evaluate("getSelection().toString()")


def test_page_works_with_keys_alone(visit) -> None:
    page = visit.page
    page.keyboard.press("Tab")  # the link to the configuration
    for _ in range(3):  # all, none, the first family
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert read_families(page) == FAMILIES[1:]


@pytest.mark.parametrize("width", [1280, 400])
def test_pictures_keep_their_proportions_when_the_window_is_narrow(browser, page_file, width) -> None:
    visit = Visit(browser, width=width)
    page = visit.page
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "[...document.images].map((each) =>"
        " [each.naturalWidth / each.naturalHeight, each.clientWidth / each.clientHeight, each.clientWidth])"
    )
    assert len(sizes) >= 4 * 2
    for natural, shown, across in sizes:
        assert shown == pytest.approx(natural, rel=0.05)
        assert across >= 80
    assert page.locator("section.family h2").all_text_contents() == [f" {name}" for name in FAMILIES]
    visit.page.close()


def test_page_can_be_read_when_scripts_are_off(browser, page_file) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert read_yaml(page, "generator.yaml")["init_args"]["families"] == FAMILIES
    sync_api.expect(page.get_by_role("button")).to_have_count(0)
    context.close()
