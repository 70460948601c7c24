"""The marking page in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.integration.review_site import Visit, open_browser, serve_marking
from tests.unit.report.defect_images import BOX, SPOT, make_parts

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
WIDTH, HEIGHT = 160, 120  # of the images
ATTACK = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def images(tmp_path) -> Path:
    return make_parts(tmp_path / "parts")


@pytest.fixture
def site(images):
    with serve_marking(images) as address:
        yield address


@pytest.fixture
def visit(browser):
    visit = Visit(browser)
    yield visit
    visit.page.close()


def expect(page, selector: str):
    return sync_api.expect(page.locator(selector))


def open_first(visit, site):
    page = visit.open(site)
    page.locator(".card .picture").first.click()
    page.wait_for_selector(".canvas img")
    return page


def drag(page, *points: tuple[float, float]) -> None:
    """Draw through points of the image with the pointer."""
    box = page.locator(".canvas").bounding_box()
    for place, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"], steps=4)
        if place == 0:
            page.mouse.down()
    page.mouse.up()


def read_mask(images: Path) -> np.ndarray:
    return np.asarray(Image.open(images / "dent" / "a_mask.png")) > 0


def wait_for_mask(page, images: Path, *, marked: bool) -> None:
    """Wait until the stroke is on the disk, or gone from there: the page saves one change after the other."""
    for _ in range(100):
        if read_mask(images)[100, 30] == marked:
            return
        page.wait_for_timeout(100)
    assert read_mask(images)[100, 30] == marked


def test_box_is_outlined_accepted_and_there_again_when_the_page_is_reloaded(visit, site, images) -> None:
    page = open_first(visit, site)
    drag(page, *BOX)
    expect(page, "#offer-text").to_have_text("Proposed outline.")
    assert json.loads((images / "dent" / "a.json").read_bytes())["shapes"][0]["shape_type"] == "rectangle"
    page.keyboard.press("Enter")
    expect(page, "#marks li").to_have_text(["outline: dent"])
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[SPOT] = True
    assert (read_mask(images) & truth).sum() / (read_mask(images) | truth).sum() > 0.8
    assert not (images / "dent" / "a.json").exists()
    drawn = page.locator(".canvas .region").get_attribute("d")
    page.reload()
    expect(page, ".canvas .region").to_have_attribute("d", drawn)
    page.keyboard.press("g")
    expect(page, ".card[data-state=marked]").to_have_count(1)
    expect(page, "#counts").to_contain_text("3 images: 1 marked, 2 not marked")


def test_box_is_kept_when_its_outline_is_refused(visit, site, images) -> None:
    page = open_first(visit, site)
    drag(page, *BOX)
    page.get_by_role("button", name="Keep the box").click()
    expect(page, "#offer").to_be_hidden()
    expect(page, "#marks li").to_have_text(["box: dent"])
    points = json.loads((images / "dent" / "a.json").read_bytes())["shapes"][0]["points"]
    assert np.abs(np.subtract(points, BOX)).max() < 1
    assert not (images / "dent" / "a_mask.png").exists()
    page.reload()
    expect(page, "#marks li").to_have_text(["box: dent"])
    page.get_by_role("button", name="box: dent").click()
    page.locator("#stage").focus()
    page.keyboard.press("Enter")  # proposes for a box that was kept
    page.wait_for_selector("#offer:not([hidden])")


def test_scribble_is_outlined_and_refined_with_brush_and_eraser_when_drawn(visit, site, images) -> None:
    page = open_first(visit, site)
    page.keyboard.press("s")
    drag(page, (68, 50), (90, 60))
    expect(page, "#refuse").to_have_text("Keep the scribble")
    page.keyboard.press("p")
    drag(page, (20, 100), (40, 100))  # accepts the outline, too
    expect(page, "#offer").to_be_hidden()
    expect(page, "#marks li").to_have_text(["outline: dent"])
    expect(page, "#stage:not(.waiting) .drawing > *").to_have_count(0)
    assert read_mask(images)[SPOT].mean() > 0.8
    wait_for_mask(page, images, marked=True)
    page.keyboard.press("e")
    drag(page, (20, 100), (40, 100))
    expect(page, ".drawing > *").to_have_count(0)
    wait_for_mask(page, images, marked=False)


def test_everything_is_taken_back_and_done_again_when_asked(visit, site, images) -> None:
    page = open_first(visit, site)
    drag(page, *BOX)
    page.wait_for_selector("#offer:not([hidden])")
    page.keyboard.press("Enter")
    expect(page, "#marks li").to_have_text(["outline: dent"])
    page.keyboard.press("Control+z")
    expect(page, "#marks li").to_have_text(["box: dent"])
    assert not (images / "dent" / "a_mask.png").exists()
    page.locator("#undo").click()
    expect(page, "#marks li").to_have_count(0)
    expect(page, "#undo").to_be_disabled()
    assert not (images / "dent" / "a.json").exists()
    page.locator("#stage").focus()
    page.keyboard.press("y")
    expect(page, "#marks li").to_have_text(["box: dent"])
    page.keyboard.press("Tab")
    page.keyboard.press("Delete")
    expect(page, "#marks li").to_have_count(0)


def test_type_is_of_the_mark_and_remembered_when_typed(visit, site, images) -> None:
    page = open_first(visit, site)
    drag(page, *BOX)
    page.wait_for_selector("#offer:not([hidden])")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.keyboard.type(ATTACK.replace("/", ""))
    page.keyboard.press("Enter")
    expect(page, "#marks li").to_have_text([f"box: {ATTACK}"])
    assert json.loads((images / "dent" / "a.json").read_bytes())["shapes"][0]["label"] == ATTACK
    page.keyboard.press("ArrowRight")
    expect(page, "#name").to_contain_text("dent/b.png (2 of 3)")
    assert page.locator("#type").input_value() == ATTACK
    assert ATTACK in page.locator("#types option").evaluate_all("options => options.map((each) => each.value)")
    assert page.title() == "parts: mark defects"


def test_next_unmarked_image_opens_when_one_has_no_defect(visit, site, images) -> None:
    page = open_first(visit, site)
    page.keyboard.press("n")
    expect(page, "#no-defect").to_have_attribute("aria-pressed", "true")
    page.keyboard.press("m")
    expect(page, "#name").to_contain_text("dent/b.png")
    page.keyboard.press("g")
    expect(page, ".card[data-state=no_defect]").to_have_count(1)
    page.locator("#states button[data-state=unmarked]").click()
    expect(page, ".card").to_have_count(2)
    assert sorted(file.name for file in (images / "dent").iterdir()) == ["a.png", "b.png"]


def test_box_is_drawn_by_keys_alone_when_there_is_no_pointer(visit, site, images) -> None:
    page = visit.open(site)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(".canvas img")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Space")
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Space")
    expect(page, "#marks li").to_have_text(["box: dent"])
    page.keyboard.press("Delete")
    expect(page, "#marks li").to_have_count(0)


def test_page_shows_the_marks_of_the_other_when_two_mark_one_image(browser, visit, site, images) -> None:
    page = open_first(visit, site)
    with serve_marking(images) as address:
        other = Visit(browser)
        drag(open_first(other, address), *BOX)
        other.page.wait_for_selector("#offer:not([hidden])")
        drag(page, (5, 5), (30, 30))
        expect(page, "#message").to_contain_text("Somebody else has changed this image")
        expect(page, "#marks li").to_have_count(1)
        assert len(json.loads((images / "dent" / "a.json").read_bytes())["shapes"]) == 1
        other.page.close()


def test_picture_is_zoomed_at_the_pointer_and_moved_when_asked(visit, site) -> None:
    page = open_first(visit, site)
    before = page.locator(".canvas").bounding_box()
    page.mouse.move(before["x"] + before["width"] / 4, before["y"] + before["height"] / 4)
    page.mouse.wheel(0, -100)
    after = page.locator(".canvas").bounding_box()
    assert after["width"] > 1.2 * before["width"]
    assert after["x"] + after["width"] / 4 == pytest.approx(before["x"] + before["width"] / 4, abs=1)
    page.keyboard.press("h")
    drag(page, (60, 60), (50, 50))
    assert page.locator(".canvas").bounding_box()["x"] < after["x"]
    page.keyboard.press("0")
    assert page.locator(".canvas").bounding_box()["width"] == pytest.approx(before["width"], abs=1)


def test_finger_draws_a_box_when_the_page_is_touched(browser, site) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800}, has_touch=True)
    page.goto(site)
    page.locator(".card .picture").first.tap()
    page.wait_for_selector(".canvas img")
    box = page.locator(".canvas").bounding_box()
    session = page.context.new_cdp_session(page)
    places = [(box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]) for x, y in BOX]
    for kind, place in (("touchStart", 0), ("touchMove", 1), ("touchEnd", None)):
        points = [] if place is None else [{"x": places[place][0], "y": places[place][1]}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page, "#offer-text").to_have_text("Proposed outline.")
    page.close()


def test_page_asks_nobody_else_and_has_no_complaint_when_used(visit, site) -> None:
    page = open_first(visit, site)
    drag(page, *BOX)
    page.wait_for_selector("#offer:not([hidden])")
    page.keyboard.press("Enter")
    expect(page, "#marks li").to_have_text(["outline: dent"])
    page.keyboard.press("g")
    page.wait_for_load_state("networkidle")
    assert {urlsplit(address).netloc for address in visit.requests} == {urlsplit(site).netloc}
    assert visit.complaints == []


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_overlaps_or_runs_out_of_the_page_when_narrow_or_wide(browser, site, width) -> None:
    visit = Visit(browser, width=width, height=800)
    overlaps = (Path(__file__).parent / "find_overlaps.js").read_text(encoding="utf-8")
    page = visit.open(site)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(overlaps) == []
    page.locator(".card .picture").first.click()
    page.wait_for_selector(".canvas img")
    drag(page, *BOX)
    page.wait_for_selector("#offer:not([hidden])")
    page.keyboard.press("p")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(overlaps) == []
    page.close()
