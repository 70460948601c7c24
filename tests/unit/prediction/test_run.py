"""What a run counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from anomalib_synth.images import WhitePoint
from anomalib_synth.prediction.reading import KnownFile, UnreadableFile
from anomalib_synth.prediction.run import Prediction
from anomalib_synth.prediction.watching import StopRequest


class _Journal:
    """An earlier run judged ``a.png``, when it held what ``old`` stands for, and found a defect."""

    def find_verdict(self, name: str, content: str) -> str:
        return {("a.png", "old"): "defect"}[name, content]

    def has_failed(self, *_: object) -> bool:
        return True


def make_run() -> Prediction:
    parts: dict[str, Any] = {"white_point": WhitePoint(), "stop": StopRequest()}
    return Prediction(cast("Any", None), cast("Any", _Journal()), cast("Any", None), **parts)


FILE = cast("Any", SimpleNamespace(name="a.png"))


def test_known_file_counts_once_when_it_is_touched_and_stays_the_same() -> None:
    run = make_run()
    for _ in range(3):
        run._skip(KnownFile(file=FILE, content="old"))
    assert (run.summary.known, dict(run.summary.counts)) == (1, {"defect": 1})


def test_file_is_judged_when_it_was_unreadable_and_is_what_was_judged_before() -> None:
    run = make_run()
    run._skip(UnreadableFile(file=FILE, content="cut", reason="cut off"))
    assert run.summary.status == 4
    run._skip(KnownFile(file=FILE, content="old"))
    assert (run.summary.status, run.summary.failed) == (3, {})
