"""The review's server over real sockets: what it answers, and what it refuses."""

from __future__ import annotations

import http.client
import json
from io import BytesIO
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.commands.review import review
from anomalib_synth.report.origin_guard import OriginGuard, is_loopback
from anomalib_synth.report.review import listen
from anomalib_synth.store import SampleStore
from tests.integration.review_site import serve_store
from tests.unit.store.samples import make_store

JSON = {"content-type": "application/json"}


@pytest.fixture
def store(tmp_path) -> SampleStore:
    return make_store(tmp_path / "store", 4, size=40)


@pytest.fixture
def ask(store):
    """Ask for a path; returns status, headers and body."""
    with serve_store(store.path) as address:
        netloc = urlsplit(address).netloc

        def ask(path: str, method: str = "GET", body: bytes | None = None, headers: dict | None = None):
            connection = http.client.HTTPConnection(netloc, timeout=20)
            given = {"Host": netloc, **(headers or {})}
            connection.putrequest(method, path, skip_host=True)
            for name, value in given.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, data

        yield ask


def decide(ask, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask("/api/decide", "POST", data, {**JSON, **headers})


def test_page_and_its_files_come_with_strict_headers(ask) -> None:
    for path in ("/", "/page/main.js", "/page/review.css", "/api/samples"):
        status, headers, data = ask(path)
        assert status == 200
        assert data
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "path",
    [
        "/page/../application.py",
        "/page/%2e%2e/guard.py",
        "/page/review.html",
        "/page/none.js",
        "/api/samples/none",
        "/api/samples/../../store.json/image.png",
        "/store.json",
    ],
)
def test_nothing_else_is_served(ask, path) -> None:
    assert ask(path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"])
def test_other_names_are_refused(ask, host) -> None:
    assert ask("/", headers={"Host": host})[0] in {400, 421}


def test_decisions_from_other_sites_are_refused(ask, store) -> None:
    body = {"ids": [store.records[0].id], "accepted": False}
    assert decide(ask, body, origin="http://evil.example")[0] == 403
    assert decide(ask, body, **{"sec-fetch-site": "cross-site"})[0] == 403
    assert decide(ask, body, **{"content-type": "text/plain"})[0] == 415
    assert SampleStore.open(store.path).decisions == {}
    assert decide(ask, body)[0] == 200
    assert SampleStore.open(store.path).decisions == {store.records[0].id: False}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        {"ids": "abc", "accepted": True},
        {"ids": [1], "accepted": True},
        {"ids": []},
        {"ids": [], "accepted": 1},
        {"ids": [], "accepted": True, "more": 1},
        {"query": 1, "expected": 2, "accepted": True},
    ],
)
def test_wrong_bodies_are_refused(ask, body) -> None:
    status, _, data = decide(ask, body)
    assert status == 400
    assert json.loads(data)["error"]


def test_unknown_sample_and_outdated_number_have_their_own_status(ask) -> None:
    assert decide(ask, {"ids": ["none"], "accepted": True})[0] == 404
    assert decide(ask, {"query": "", "expected": 3, "accepted": True})[0] == 409
    assert ask("/api/samples?sort=none")[0] == 400


def test_pictures_are_the_stores(ask, store) -> None:
    record = store.records[1]
    for name, pixels in (("image", store.read_image(record)), ("source", store.read_source(record))):
        full = Image.open(BytesIO(ask(f"/api/samples/{record.id}/{name}.png")[2]))
        assert np.array_equal(np.asarray(full), pixels)
        small = Image.open(BytesIO(ask(f"/api/samples/{record.id}/{name}.webp")[2]))
        assert small.size == (40, 40)
        assert np.abs(np.asarray(small).astype(int).mean() - pixels.mean()) < 6
    status, headers, outline = ask(f"/api/samples/{record.id}/outline.svg")
    assert (status, headers["content-type"]) == (200, "image/svg+xml")
    assert b"M" in outline
    assert b"script" not in outline


@pytest.mark.parametrize("kind", ["image", "mask", "source"])
def test_a_damaged_file_is_never_served(ask, store, kind) -> None:
    path = store.path / getattr(store.records[0], f"{kind}_file")
    path.write_bytes(path.read_bytes() + b"x")
    name = {"image": "image.png", "mask": "outline.svg", "source": "source.webp"}[kind]
    status, _, data = ask(f"/api/samples/{store.records[0].id}/{name}")
    assert status == 422
    assert "was edited or damaged" in json.loads(data)["error"]
    assert ask(f"/api/samples/{store.records[1].id}/{name}")[0] == 200


def test_guard_knows_the_names_of_its_own_machine() -> None:
    local, everywhere = OriginGuard(None, host="127.0.0.1"), OriginGuard(None, host="0.0.0.0")
    assert local.allows("localhost:8765")
    assert local.allows("[::1]:80")
    assert not local.allows("192.168.0.4:8765")
    assert everywhere.allows("192.168.0.4:8765")
    assert not everywhere.allows("evil.example")
    assert is_loopback("127.0.0.1")
    assert not is_loopback("0.0.0.0")


def test_ports_in_use_or_out_of_range_are_errors() -> None:
    with pytest.raises(ValueError, match="`port` must be in"):
        listen("127.0.0.1", 70000)
    with listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match="Choose another `port`"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("out", "number", "message"), [("page.txt", 5, "`static` must be a file"), ("page.html", 0, "`num_static` must be")]
)
def test_bad_arguments_of_a_static_report(store, tmp_path, out, number, message) -> None:
    with pytest.raises(ValueError, match=message):
        review(store.path, static=tmp_path / out, num_static=number)


def test_a_static_report_of_an_empty_store(tmp_path) -> None:
    SampleStore.create(tmp_path / "empty", {})
    review(tmp_path / "empty", static=tmp_path / "deep" / "page.html")
    assert "0 samples" in (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
