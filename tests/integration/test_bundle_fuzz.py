"""A few hundred edits of a bundle by hypothesis; `benchmarks/fuzz_bundles.py` makes many more."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("open_clip")

from benchmarks.fuzz_bundles import fuzz


def test_a_bundle_is_refused_with_one_kind_of_error_or_works_when_it_is_edited() -> None:
    counts = fuzz(300)
    assert counts["edits"] >= 200
    assert counts["refused with ValueError"] + counts["loaded"] == counts["edits"]
    assert counts["loaded"] > 0
    for name in ("errors of other kinds", "refused without naming the file", "network attempts", "files outside"):
        assert counts[name] == 0, name
    assert counts["code run"] == 0
