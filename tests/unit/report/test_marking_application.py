"""The marking page's server over real sockets: what it answers, and what it refuses."""

from __future__ import annotations

import http.client
import json
import threading
from io import BytesIO
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.images import ImageReader
from anomalib_synth.report.marking_files import MarkedFolder
from anomalib_synth.report.marking_pictures import MarkingPictures
from tests.integration.review_site import serve_marking
from tests.unit.report.defect_images import BOX, SPOT, draw_part, make_parts

JSON = {"content-type": "application/json"}


class Darkest:
    """Proposes where an image is dark."""

    def propose(self, image: np.ndarray) -> np.ndarray:
        return 1 - image.mean(2) / 255


@pytest.fixture
def images(tmp_path):
    return make_parts(tmp_path / "parts")


@pytest.fixture
def ask(images):
    """Ask for a path; returns status, headers and body."""
    with serve_marking(images, proposer=Darkest()) as address:
        netloc = urlsplit(address).netloc

        def ask(path: str, body=None, **headers):
            connection = http.client.HTTPConnection(netloc, timeout=20)
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            method = "GET" if body is None else "POST"
            connection.request(method, path, data, {**(JSON if body is not None else {}), **headers})
            answer = connection.getresponse()
            found = answer.read()
            connection.close()
            is_json = answer.getheader("content-type", "").startswith("application/json")
            return answer.status, dict(answer.getheaders()), json.loads(found) if is_json else found

        yield ask


@pytest.fixture
def key(ask) -> str:
    return ask("/api/images")[2]["images"][0]["id"]


def edit(ask, key: str, **given):
    seen = ask(f"/api/images/{key}")[2]["version"]
    return ask(f"/api/images/{key}/edit", {"seen": seen, "type": "dent", "edit": given})


def test_page_comes_with_strict_headers_when_asked_for(ask) -> None:
    for path in ("/", "/page/mark.js", "/page/mark.css", "/api/images"):
        status, headers, data = ask(path)
        assert status == 200
        assert data
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../marking.py",
        "/page/mark.html",
        "/api/images/none",
        "/api/images/../../a.png",
        "/api/images/..%2f..%2fetc%2fpasswd/picture",
        "/dent/a.png",
        "/api/images/none/outline",
    ],
)
def test_nothing_else_is_served_when_a_path_leads_elsewhere(ask, path) -> None:
    assert ask(path)[0] == 404


def test_marks_of_other_sites_are_refused_when_they_are_sent(ask, key, images) -> None:
    body = {"seen": ask(f"/api/images/{key}")[2]["version"], "type": "a", "edit": {"kind": "box", "points": BOX}}
    path = f"/api/images/{key}/edit"
    assert ask(path, body, origin="http://evil.example")[0] == 403
    assert ask(path, body, **{"content-type": "text/plain"})[0] == 415
    assert ask("/", host="evil.example")[0] == 421
    assert not (images / "dent" / "a.json").exists()
    assert ask(path, body)[0] == 200
    assert (images / "dent" / "a.json").is_file()


def test_box_is_outlined_and_the_outline_saved_when_accepted(ask, key, images) -> None:
    assert edit(ask, key, kind="box", points=BOX)[2]["shapes"][0]["points"] == BOX
    offered = ask(f"/api/images/{key}/outline?shape=0")[2]["outline"]
    shown = edit(ask, key, kind="accept", shape=0)[2]
    assert shown["mask"] == offered
    status, _, shown = ask(f"/api/images/{key}/step", {"seen": shown["version"], "back": True})
    assert (status, len(shown["shapes"]), shown["mask"]) == (200, 1, "")
    listed = ask("/api/images")[2]
    assert (listed["counts"]["marked"], listed["types"]) == (1, ["dent"])


def test_whole_image_is_outlined_when_there_is_a_proposer(ask, key, images) -> None:
    assert ask("/api/images")[2]["proposes"]
    assert ask(f"/api/images/{key}/outline")[2]["outline"].startswith("M")
    edit(ask, key, kind="accept", shape=None)
    assert np.asarray(Image.open(images / "dent" / "a_mask.png"))[SPOT].mean() > 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        {},
        {"seen": "x", "type": "a", "edit": {"kind": "box"}},
        {"seen": "x", "type": 1, "edit": {"kind": "box", "points": BOX}},
        {"seen": "x", "type": "a", "edit": []},
    ],
)
def test_body_is_refused_when_it_is_no_edit(ask, key, body) -> None:
    status, _, answer = ask(f"/api/images/{key}/edit", body)
    assert status == 400
    assert answer["error"]
    assert ask(f"/api/images/{key}/step", body)[0] == 400


@pytest.mark.parametrize("shape", ["1", "-1", "x", "9" * 30])
def test_outline_is_refused_when_there_is_no_such_shape(ask, key, shape) -> None:
    assert ask(f"/api/images/{key}/outline?shape={shape}")[0] == 400


def test_present_state_comes_along_when_an_edit_is_outdated(ask, key) -> None:
    edit(ask, key, kind="box", points=BOX)
    body = {"seen": "old", "type": "a", "edit": {"kind": "box", "points": BOX}}
    status, _, answer = ask(f"/api/images/{key}/edit", body)
    assert (status, len(answer["shapes"])) == (409, 1)
    assert "Somebody else" in answer["error"]


def test_pictures_are_the_images_when_asked_for(ask, key) -> None:
    edit(ask, key, kind="box", points=BOX)
    edit(ask, key, kind="scribble", points=[[1, 1]])
    full = np.asarray(Image.open(BytesIO(ask(f"/api/images/{key}/picture")[2])))
    assert np.array_equal(full, draw_part(0))
    assert Image.open(BytesIO(ask(f"/api/images/{key}/thumbnail.webp")[2])).size == (160, 120)
    marks = ask(f"/api/images/{key}/marks.svg")[2]
    assert b"<rect" in marks
    assert b"<polyline" in marks
    assert ask(f"/api/images/{key}/other.png")[0] == 404


def test_large_picture_is_sent_nearly_without_loss_when_it_has_many_pixels(tmp_path) -> None:
    pixels = draw_part(width=2600, height=1800)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    folder = MarkedFolder.open(tmp_path)
    data, kind = MarkingPictures(folder, ImageReader()).picture(next(iter(folder.listed.values())))
    assert kind == "image/jpeg"
    assert np.abs(np.asarray(Image.open(BytesIO(data))).astype(int) - pixels).mean() < 3


def test_image_is_listed_with_its_reason_when_it_cannot_be_read(images) -> None:
    (images / "dent" / "b.png").write_bytes(b"\x89PNG nothing")
    folder = MarkedFolder.open(images)
    pictures = MarkingPictures(folder, ImageReader())
    pictures.look_through()
    (reason,) = pictures.unreadable.values()
    assert "not an image" in reason
    with serve_marking(images) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", f"/api/images/{next(iter(pictures.unreadable))}/picture")
        answer = connection.getresponse()
        assert answer.status == 422
        assert "not an image" in json.loads(answer.read())["error"]
        connection.close()


def test_outlines_do_not_get_mixed_when_many_ask_at_once(ask, key) -> None:
    edit(ask, key, kind="box", points=BOX)
    edit(ask, key, kind="scribble", points=[[68, 50], [90, 60]])
    alone = [ask(f"/api/images/{key}/outline?shape={shape}")[2] for shape in (0, 1)]
    found: list = [None] * 6

    def look(place: int) -> None:
        found[place] = ask(f"/api/images/{key}/outline?shape={place % 2}")[2]

    threads = [threading.Thread(target=look, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "One of `store`, `images` and `regions` must be given, got none"),
        (["--store=x", "--images={root}"], "got store and images"),
        (["--regions={root}"], "`out` must be given with `--regions`"),
        (["--regions={root}", "--out=x", "--detector=x"], "`detector` must be left out for `--regions`"),
        (["--images={root}", "--static=x.html"], "`static` must be left out for `--images`"),
        (["--images={root}", "--price_per_hour=1"], "`price_per_hour` must be left out"),
        (["--store={root}", "--out=x"], "`out` must be left out for `--store`"),
        (["--store={root}", "--normals={root}"], "`normals` must be left out for `--store`"),
        (["--images=missing"], "`images` must be a folder with images"),
        (["--images={root}", "--normals=missing"], "`normals` must be a folder with images"),
        (["--images={root}", "--port=70000"], "`port` must be in"),
    ],
)
def test_command_says_what_is_wrong_when_its_arguments_are(images, arguments, message) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["review", *(each.format(root=images) for each in arguments)])
    assert message in str(ended.value)


@pytest.mark.parametrize("of_regions", [False, True])
def test_page_offers_what_is_about_defects_only_when_defects_are_marked(of_regions, images, tmp_path) -> None:
    with serve_marking(images, tmp_path / "out", of_regions=of_regions) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", "/")
        page = connection.getresponse().read().decode()
        connection.close()
    assert ('data-state="no_defect"' in page) is not of_regions
    assert ("Draw a box around the region" in page) is of_regions
    button = next(line for line in page.splitlines() if 'id="no-defect"' in line)
    assert (" hidden>" in button) is of_regions
