"""What CONTRIBUTING promises: its examples are short, and every file it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "names", "most"),
    [
        ("examples/own_family.py", {"draw_drip", "render_drip", "DRIP"}, 30),
        ("examples/custom_generator.py", {"BrightSpotGenerator"}, 35),
        ("examples/own_model.py", {"PixelClassifier"}, 25),
        ("tests/unit/comparison/test_trial_metrics.py", {"test_metric_is_a_column_when_it_has_an_entry"}, 15),
    ],
)
def test_addition_is_short_when_it_follows_the_guide(file, names, most) -> None:
    found = {}
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        name = node.targets[0].id if isinstance(node, ast.Assign) else getattr(node, "name", "")
        found[name] = node.end_lineno - node.lineno + 1
    assert names <= found.keys()
    assert sum(found[name] for name in names) <= most


def test_file_is_there_when_the_guide_names_it() -> None:
    named = set(re.findall(r"(?:anomalib_synth|tests|docs|examples|scripts|benchmarks|configs|\.ci)/[\w./]*\w", TEXT))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
