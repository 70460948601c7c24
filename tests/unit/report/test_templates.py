"""What the pages make of a text."""

from __future__ import annotations

import pytest

from anomalib_synth.report.templates import show_prose


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("less than `min_recall` asks", "less than <code>min_recall</code> asks"),
        ("`<b>`, `a`", "<code>&lt;b&gt;</code>, <code>a</code>"),
        ("<i>one ` alone", "&lt;i&gt;one ` alone"),
        ("", ""),
    ],
)
def test_backticks_are_code_when_a_text_is_shown(text, shown) -> None:
    assert str(show_prose(text)) == shown
