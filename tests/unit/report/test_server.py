"""Two servers on one store, bad rows while they serve, and clients that are slow, many, or never done."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from anomalib_synth.report import server as limits
from anomalib_synth.report.review_session import OutdatedError, ReviewSession
from anomalib_synth.store import SampleStore
from anomalib_synth.store.files import append_lines
from anomalib_synth.store.locking import exclusive
from tests.integration.review_site import serve_store
from tests.unit.store.samples import make_record, make_store
from tests.warm_python import WarmPython

if TYPE_CHECKING:
    from collections.abc import Iterator

UPLOAD = (
    b"POST /api/decide HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"
)


@pytest.fixture
def store(tmp_path) -> SampleStore:
    return make_store(tmp_path / "store", 4)


def ask(address: str, path: str, body: dict | None = None) -> tuple[int, dict]:
    """Return status and answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def version(address: str, index: int) -> int:
    return ask(address, "api/samples")[1]["samples"][index]["version"]


def connect(address: str, data: bytes) -> socket.socket:
    place = urlsplit(address)
    connection = socket.create_connection((place.hostname, place.port))
    connection.sendall(data)
    return connection


def test_a_reviewer_is_told_when_another_server_decided_meanwhile(store) -> None:
    sample = store.records[0].id
    with serve_store(store.path) as a, serve_store(store.path) as b:
        seen = version(a, 0)
        assert ask(a, "api/decide", {"ids": [sample], "accepted": True, "seen": {sample: seen}})[0] == 200
        shown_by_a = version(a, 0)
        assert ask(b, "api/decide", {"ids": [sample], "accepted": False, "seen": {sample: version(b, 0)}})[0] == 200
        before = (store.path / "decisions.jsonl").read_bytes()
        status, answer = ask(a, "api/decide", {"ids": [sample], "accepted": True, "seen": {sample: shown_by_a}})
        assert status == 409
        assert "Somebody else has decided about this sample meanwhile" in answer["error"]
        assert answer["states"] == {sample: {"decision": False, "kept": False}}
        assert (store.path / "decisions.jsonl").read_bytes() == before
        status, _ = ask(a, "api/decide", {"ids": [sample], "accepted": True, "seen": answer["versions"]})
        assert status == 200
    assert SampleStore.open(store.path).decisions == {sample: True}


def test_the_word_is_written_when_a_client_names_no_version(store) -> None:
    sample = store.records[0].id
    with serve_store(store.path) as a, serve_store(store.path) as b:
        for address, accepted in ((a, True), (b, False), (a, True)):
            assert ask(address, "api/decide", {"ids": [sample], "accepted": accepted})[0] == 200
    assert SampleStore.open(store.path).decisions == {sample: True}


def test_all_that_match_are_refused_when_one_was_decided_meanwhile(store) -> None:
    sample = store.records[1].id
    with serve_store(store.path) as a, serve_store(store.path) as b:
        seen = ask(a, "api/samples")[1]["version"]
        ask(b, "api/decide", {"ids": [sample], "accepted": True})
        body = {"query": "", "expected": 4, "accepted": False}
        status, answer = ask(a, "api/decide", {**body, "version": seen})
        assert (status, list(answer["states"])) == (409, [sample])
        assert SampleStore.open(store.path).decisions == {sample: True}
        assert ask(a, "api/decide", {**body, "version": answer["version"]})[0] == 200


def test_undo_leaves_what_others_decided_when_they_came_to_the_same_word(store) -> None:
    sample = store.records[0].id
    mine, theirs = ReviewSession(store), ReviewSession(SampleStore.open(store.path))
    mine.decide([sample], accepted=True)
    theirs.decide([sample], accepted=False)
    theirs.decide([sample], accepted=True)
    assert mine.undo()["changed"] == 0
    assert SampleStore.open(store.path).decisions == {sample: True}
    with pytest.raises(OutdatedError):
        mine.decide([sample], accepted=False, seen={sample: 1})


@pytest.mark.parametrize(
    "body",
    [
        {"ids": [], "accepted": True, "seen": []},
        {"ids": [], "accepted": True, "seen": {"x": "1"}},
        {"ids": [], "accepted": True, "seen": {"x": True}},
        {"ids": [], "accepted": "true"},
        {"query": "", "expected": True, "accepted": True},
        {"query": "", "expected": 4, "accepted": True, "version": 1.5},
        {"query": "", "expected": 4, "accepted": True, "seen": {}},
    ],
)
def test_a_body_is_refused_when_a_field_is_something_else(store, body) -> None:
    with serve_store(store.path) as address:
        status, answer = ask(address, "api/decide", body)
    assert (status, "The body " in answer["error"]) == (400, True)


@pytest.mark.parametrize("bad", [b"5\n", b'{"id": "x"}\n', b"half a row\n", b"\xff\x00\n"])
def test_good_rows_are_served_and_the_bad_one_named_when_it_comes_while_serving(store, bad) -> None:
    with serve_store(store.path) as address:
        assert ask(address, "api/samples")[1]["matching"] == 4
        for name in ("manifest.jsonl", "decisions.jsonl"):
            with (store.path / name).open("ab") as file:
                file.write(bad)
        append_lines(store.path / "manifest.jsonl", make_record(store, 4).to_line())
        for _ in range(2):
            status, page = ask(address, "api/samples")
            assert (status, page["matching"]) == (200, 5)
            assert "manifest.jsonl', line 5, " in page["problems"][0]
            assert "decisions.jsonl', line 1, " in page["problems"][1]
        sample = page["samples"][4]["id"]
        assert ask(address, "api/decide", {"ids": [sample], "accepted": False})[0] == 200
        (store.path / "filter.json").write_text("{")
        status, page = ask(address, "api/samples")
        assert (status, len(page["problems"])) == (200, 3)
        SampleStore.open(store.path, strict=False).repair()
        status, page = ask(address, "api/samples")
        assert (status, page["matching"], page["problems"]) == (200, 5, [])
        assert page["samples"][4]["decision"] is False


def test_a_good_client_is_served_when_others_hold_all_connections(store, monkeypatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 10)
    with serve_store(store.path) as address:
        held = [connect(address, data) for data in (b"", b"GET / HT", UPLOAD) for _ in range(20)]
        assert ask(address, "api/samples")[0] == 200
        ended = 0
        for connection in held:
            connection.settimeout(0.01)
            try:
                ended += connection.recv(1) == b""
            except ConnectionError:
                ended += 1
            except TimeoutError:
                pass
        assert 60 - 10 <= ended < 60
        assert ask(address, "api/samples")[0] == 200
        for connection in held:
            connection.close()


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost", UPLOAD])
def test_a_client_is_let_go_when_its_request_does_not_end(store, monkeypatch, data) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.2)
    with serve_store(store.path) as address:
        connection = connect(address, data)
        connection.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        assert ask(address, "api/samples")[0] == 200
        connection.close()


def test_nothing_is_complained_of_when_a_client_goes_away(store, capfd) -> None:
    with serve_store(store.path) as address:
        connect(address, UPLOAD).close()
        for _ in range(20):
            assert ask(address, "api/samples")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


@contextlib.contextmanager
def run_review(store: SampleStore) -> Iterator[tuple[WarmPython, str]]:
    """Run the command in a process of its own; give it and its address once it has answered."""
    process = WarmPython(["-m", "anomalib_synth.cli", "review", "--store", store.path, "--port", "0"])
    address = re.search(r"http://127\.0\.0\.1:\d+/", process.read_line())[0]
    ask(address, "api/samples")
    yield process, address


def count_threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_without_a_word_when_a_decision_waits_for_another_process(store, sign) -> None:
    with run_review(store) as (process, address):
        body = json.dumps({"ids": [store.records[0].id], "accepted": False}).encode()
        head = b"POST /api/decide HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
        with exclusive(store.path / ".decisions.lock", wait=0.0):
            idle = count_threads(process.pid)
            waiting = [connect(address, head + b"%d\r\n\r\n" % len(body) + body) for _ in range(4)]
            while count_threads(process.pid) < idle + 2:  # some wait in threads that were there
                assert process.runs()
                time.sleep(0.02)
            process.send_signal(sign)
            ended = process.wait()
            for connection in waiting:
                connection.close()
        assert ended.stderr == ""
    assert SampleStore.open(store.path).is_accepted(store.records[0])


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_at_once_whatever_clients_do_when_it_is_told_to(store, sign) -> None:
    with run_review(store) as (process, address):
        held = [connect(address, data) for data in (b"", b"GET / HT", UPLOAD) for _ in range(10)]
        unread = [connect(address, b"GET /page/main.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 400) for _ in range(3)]
        assert ask(address, "api/samples")[0] == 200
        watcher = threading.Timer(15, process.send_signal, [signal.SIGKILL])  # it did not end within 15 s before
        watcher.start()
        process.send_signal(sign)
        ended = process.wait()
        watcher.cancel()
        assert ended.returncode != -signal.SIGKILL
        assert "Traceback" not in ended.stderr
        for connection in (*held, *unread):
            connection.close()
