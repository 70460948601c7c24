"""The review page in a real browser."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.commands.review import review
from anomalib_synth.store import SampleStore
from tests.integration.review_site import Visit, open_browser, serve_store
from tests.unit.store.samples import make_record, reject
from tests.warm_python import WarmPython

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
FAMILIES = ("scratch", "dent", "hole", "stain")


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def store(tmp_path) -> SampleStore:
    """100 samples of 64 px and a rejected draw; sample 3 has a hostile caption and source, sample 4 a damaged image."""
    store = SampleStore.create(tmp_path / "store", {"num_samples": 101})
    with store.writing():
        for index in range(100):
            record = make_record(store, index, size=64, family=FAMILIES[index % 4], quality=index / 100)
            if index == 3:
                record = replace(record, caption=ATTACK, source=f"{ATTACK}.png")
            store.append(record)
        store.append(reject(make_record(store, 100, size=64)))
    damaged = store.path / store.records[4].image_file
    damaged.write_bytes(damaged.read_bytes()[:-9])
    return store


@pytest.fixture
def site(store):
    with serve_store(store.path) as address:
        yield address


@pytest.fixture
def visit(browser):
    visit = Visit(browser)
    yield visit
    visit.page.close()


def wait_for_count(page, text: str) -> None:
    sync_api.expect(page.locator("#matching")).to_have_text(text)


def wait_for_message(page, text: str) -> None:
    sync_api.expect(page.locator("#message")).to_have_text(text)


def wait_for_first(page, index: int) -> None:
    sync_api.expect(page.locator(".card").first).to_have_attribute("data-index", str(index))


def wait_for_rejected(page, count: int) -> None:
    sync_api.expect(page.locator(".card[data-decision=false]")).to_have_count(count)


def wait_for_viewed(page, record) -> None:
    sync_api.expect(page.locator("#compare img").first).to_have_attribute("src", f"/api/samples/{record.id}/source.png")


def captions(page) -> list[str]:
    return page.locator(".card .caption").all_inner_texts()


def test_open_filter_reject_reload(visit, site, store) -> None:
    page = visit.open(site)
    wait_for_count(page, "101 samples match")
    page.get_by_label("dent", exact=False).check()
    wait_for_count(page, "25 samples match")
    assert set(page.locator(".card .line").all_inner_texts()) == {f"dent · {r.source}" for r in store.records[1::4]}
    page.locator(".card").first.focus()
    page.keyboard.press("r")
    wait_for_message(page, "Rejected: 1 sample.")
    page.keyboard.press("a")
    wait_for_message(page, "Accepted: 1 sample.")
    assert SampleStore.open(store.path).decisions == {store.records[1].id: False, store.records[5].id: True}

    page.reload()
    wait_for_count(page, "25 samples match")
    assert page.locator(".card").nth(0).get_attribute("data-decision") == "false"
    assert page.locator(".card").nth(1).get_attribute("data-decision") == "true"
    assert page.locator(".card").nth(0).locator(".state").inner_text() == "rejected"
    manifest = SampleStore.open(store.path).frame()
    assert manifest.loc[[1, 5], "kept"].tolist() == [False, True]


def test_no_external_request_and_no_complaint(visit, site, store) -> None:
    store.repair()
    page = visit.open(site)
    page.locator(".card .picture").first.click()
    page.wait_for_selector("#facts dt")
    page.wait_for_load_state("networkidle")
    assert len(visit.requests) > 10
    assert {urlsplit(address).netloc for address in visit.requests} == {urlsplit(site).netloc}
    assert visit.complaints == []


def test_names_with_markup_are_text(visit, site) -> None:
    page = visit.open(f"{site}?find=owned")
    wait_for_count(page, "1 sample matches")
    assert captions(page) == [ATTACK]
    page.keyboard.press("Enter")
    page.wait_for_selector("#facts dt")
    assert page.locator("#caption").inner_text() == ATTACK
    assert page.locator("#facts").get_by_text(f"{ATTACK}.png", exact=True).count() == 1
    assert page.title().endswith("review")
    assert page.locator("#grid script, #facts script, #grid img[src=x]").count() == 0


def test_undo_takes_back_by_key_and_by_click(visit, site, store) -> None:
    page = visit.open(site)
    assert page.locator("#undo").is_disabled()
    page.keyboard.press("r")
    page.keyboard.press("r")
    wait_for_rejected(page, 2)
    page.keyboard.press("u")
    wait_for_rejected(page, 1)
    page.locator("#undo").click()
    wait_for_rejected(page, 0)
    assert page.locator("#undo").is_disabled()
    assert SampleStore.open(store.path).decisions == {}


def test_select_several_and_reject_them(visit, site, store) -> None:
    page = visit.open(site)
    page.locator(".pick input").nth(2).click()
    page.locator(".pick input").nth(6).click(modifiers=["Shift"])
    assert page.locator("#selected").inner_text() == "5 selected"
    page.locator("#selection").get_by_role("button", name="Reject").click()
    wait_for_message(page, "Rejected: 5 samples.")
    assert SampleStore.open(store.path).decisions == {store.records[index].id: False for index in range(2, 7)}
    assert page.locator("#selection").is_hidden()


def test_all_that_match_are_rejected_beyond_the_page(visit, site, store) -> None:
    page = visit.open(f"{site}?range=quality:0.2:")
    wait_for_count(page, "80 samples match")
    page.keyboard.press("Control+a")
    page.locator("#whole").click()
    page.keyboard.press("r")
    wait_for_message(page, "Rejected: 80 samples.")
    assert sum(value is False for value in SampleStore.open(store.path).decisions.values()) == 80


def test_sort_find_and_pages(visit, site, store) -> None:
    page = visit.open(site)
    page.get_by_label("Sort by").select_option("quality")
    page.get_by_label("Order").select_option("desc")
    wait_for_first(page, 99)
    page.keyboard.press("n")
    sync_api.expect(page.locator("#place")).to_have_text("61 to 101 of 101")
    assert page.locator(".card").first.get_attribute("data-index") == "39"
    assert page.locator("#next").is_disabled()
    page.locator("#previous").click()
    wait_for_first(page, 99)
    page.get_by_label("Find").fill(store.records[42].id)
    wait_for_count(page, "1 sample matches")


def test_drag_over_the_histogram_chooses_a_range(visit, site) -> None:
    page = visit.open(site)
    box = page.locator("#histogram").bounding_box()
    page.mouse.move(box["x"] + 0.51 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.74 * box["width"], box["y"] + 20)
    page.mouse.up()
    wait_for_count(page, "26 samples match")
    assert page.get_by_label("at least").input_value() == "0.5"
    assert page.get_by_label("at most").input_value() == "0.75"
    page.locator("#ranges button").click()
    wait_for_count(page, "101 samples match")


def test_before_and_after(visit, site) -> None:
    page = visit.open(site)
    picture = page.locator(".card .picture").first
    opacity = "element => getComputedStyle(element).opacity"
    picture.hover()
    sync_api.expect(picture.locator(".before")).to_have_js_property("naturalWidth", 64)
    assert picture.locator(".before").evaluate(opacity) == "1"
    assert picture.locator(".outline").evaluate(opacity) == "0"
    page.mouse.move(0, 0)
    assert picture.locator(".before").evaluate(opacity) == "0"
    picture.click()
    sync_api.expect(page.locator("#viewer .after")).to_have_js_property("naturalWidth", 64)
    sync_api.expect(page.locator("#scale")).not_to_have_text("")
    page.locator("#split-at").fill("25")
    clip = page.locator("#viewer .after").evaluate("element => getComputedStyle(element).clipPath")
    assert clip == "inset(0px 75% 0px 0px)"
    before = page.locator(".sheet").bounding_box()["width"]
    page.keyboard.press("-")
    assert page.locator(".sheet").bounding_box()["width"] == pytest.approx(before / 2, abs=2)
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()


def test_viewer_has_its_size_however_late_the_image_before_comes(visit, site) -> None:
    page = visit.open(site)
    held = []
    page.route("**/source.png", lambda route: held.append(route))  # noqa: PLW0108  (its name is set)
    page.locator(".card .picture").first.click()
    sync_api.expect(page.locator("#viewer .after")).to_have_js_property("naturalWidth", 64)
    sync_api.expect(page.locator("#scale")).not_to_have_text("0 %")
    sync_api.expect(page.locator("#scale")).not_to_have_text("")
    assert page.locator(".sheet").bounding_box()["width"] > 64
    assert len(held) == 1
    held[0].continue_()
    sync_api.expect(page.locator("#viewer .before")).to_have_js_property("naturalWidth", 64)


def test_viewer_goes_on_after_a_decision(visit, site, store) -> None:
    page = visit.open(site)
    page.keyboard.press("Enter")
    page.keyboard.press("a")
    wait_for_viewed(page, store.records[1])
    page.keyboard.press("r")
    wait_for_viewed(page, store.records[2])
    wait_for_message(page, "Rejected: 1 sample.")
    assert SampleStore.open(store.path).decisions == {store.records[0].id: True, store.records[1].id: False}


def test_damaged_file_is_named_and_nothing_wrong_is_shown(visit, site, store) -> None:
    page = visit.open(f"{site}?find={store.records[4].id}")
    page.wait_for_selector(".card .broken-text")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare .error")
    assert "was edited or damaged" in page.locator("#compare .error").inner_text()


def test_a_sample_that_was_never_drawn_cannot_be_accepted(visit, site) -> None:
    page = visit.open(f"{site}?decision=out")
    wait_for_count(page, "1 sample matches")
    assert page.locator(".card .yes").is_disabled()
    page.keyboard.press("a")
    wait_for_message(page, "Nothing to change. 1 sample left as before.")


def test_wrong_query_in_the_address_is_a_message(visit, site) -> None:
    visit.page.goto(f"{site}?sort=nonsense")
    visit.page.wait_for_selector("#message.error")
    assert "`sort` must be one of" in visit.page.locator("#message").inner_text()


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_overlaps_or_runs_out_of_the_page(browser, site, width) -> None:
    visit = Visit(browser, width=width)
    page = visit.open(site)
    page.keyboard.press("Space")
    if width == 400:
        page.get_by_text("Filter and sort").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate((Path(__file__).parent / "find_overlaps.js").read_text(encoding="utf-8")) == []
    page.close()


def test_static_report_needs_nothing_else(visit, store, tmp_path) -> None:
    store.decide([store.records[0].id], accepted=False)
    review(store.path, static=tmp_path / "report.html", num_static=1000)
    visit.page.goto((tmp_path / "report.html").as_uri())
    assert {urlsplit(address).scheme for address in visit.requests} <= {"file", "data"}
    assert visit.complaints == []
    assert visit.page.title() == "store: synthetic defects"
    text = visit.page.inner_text("body")
    assert "101 samples: 99 kept, 2 left out" in text
    assert ATTACK in text
    assert "was edited or damaged" in text
    loaded = visit.page.locator("li img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert len(loaded) == 3 * 99
    assert min(loaded) > 0


def test_command_serves_on_this_computer_only_and_ends_when_interrupted(store) -> None:
    process = WarmPython(["-m", "anomalib_synth.cli", "review", "--store", store.path, "--port", "0"])
    address = re.search(r"http://127\.0\.0\.1:\d+/", line := process.read_line())
    assert address, line
    with urllib.request.urlopen(f"{address[0]}api/samples?per_page=2") as answer:
        assert [each["index"] for each in json.load(answer)["samples"]] == [0, 1]
    process.send_signal(signal.SIGINT)
    assert process.wait().returncode == 0


def test_pictures_are_what_the_store_holds(site, store) -> None:
    record = store.records[0]
    with urllib.request.urlopen(f"{site}api/samples/{record.id}/image.png") as answer:
        assert np.array_equal(np.asarray(Image.open(answer)), store.read_image(record))
    assert Path(store.path / record.image_file).is_file()


def test_the_page_says_so_when_somebody_else_decided_meanwhile(browser, visit, site, store) -> None:
    page = visit.open(site)
    first, second = store.records[:2]
    with serve_store(store.path) as address:
        other = Visit(browser).open(address)
        other.keyboard.press("r")
        wait_for_message(other, "Rejected: 1 sample.")
        page.keyboard.press("a")
        sync_api.expect(page.locator("#message")).to_contain_text(
            "Somebody else has decided about this sample meanwhile"
        )
        sync_api.expect(page.locator(f".card[data-id='{first.id}']")).to_have_attribute("data-decision", "false")
        assert SampleStore.open(store.path).decisions == {first.id: False}
        page.locator(".card").first.focus()
        page.keyboard.press("a")  # having seen it
        wait_for_message(page, "Accepted: 1 sample.")
        other.keyboard.press("a")
        wait_for_message(other, "Accepted: 1 sample.")
        page.keyboard.press("Control+a")
        page.locator("#whole").click()
        page.keyboard.press("r")
        sync_api.expect(page.locator("#message")).to_contain_text("Somebody else has decided")
        sync_api.expect(page.locator(f".card[data-id='{second.id}']")).to_have_attribute("data-decision", "true")
        assert SampleStore.open(store.path).decisions == {first.id: True, second.id: True}
        page.keyboard.press("Control+a")
        page.locator("#whole").click()
        page.keyboard.press("r")
        wait_for_message(page, "Rejected: 100 samples. 1 sample left as before.")
        other.close()


def test_the_page_names_a_bad_line_and_shows_the_rest(visit, site, store) -> None:
    with (store.path / "manifest.jsonl").open("ab") as file:
        file.write(b"5\n")
    page = visit.open(site)
    wait_for_count(page, "101 samples match")
    sync_api.expect(page.locator("#problems")).to_contain_text("manifest.jsonl', line 102, is not a sample")
