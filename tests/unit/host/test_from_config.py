"""Objects of anomalib from plain data, and what is said when there is no such object."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from lightning.pytorch import Callback

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.host.from_config import build_object, check_object

RULES = {"class_path": "anomalib_synth.generators.RuleBasedGenerator", "init_args": {"families": ["scratch"]}}
SECTION: dict[str, Any] = {
    "class_path": "anomalib_synth.callbacks.SynthesisCallback",
    "init_args": {"generator": RULES, "probability": 0.25},
}


def test_object_is_built_when_what_is_in_it_is_described_too() -> None:
    given = copy.deepcopy(SECTION)
    callback = build_object(Callback, given, "`callbacks`")
    assert isinstance(callback, SynthesisCallback)
    assert callback.probability == 0.25
    assert given == SECTION


@pytest.mark.parametrize("check", [check_object, build_object])
@pytest.mark.parametrize(
    ("section", "said"),
    [
        (None, "required"),
        ({"class_path": "nowhere.Callback"}, r"`x` cannot be built: Problem with .*No module named 'nowhere'"),
        ({"class_path": "pathlib.Path"}, "`x` cannot be built: .*pathlib.Path"),
        ({**SECTION, "init_args": {"probabilty": 0.5}}, "`x` cannot be built: .*probabilty"),
    ],
)
def test_section_is_refused_by_name_when_it_describes_no_such_object(check, section, said) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        check(Callback, section, "`x`")
    assert str(raised.value).startswith("`x` cannot be built: ")
    assert "NoneType" not in str(raised.value)


def test_section_is_refused_by_name_when_the_constructor_refuses() -> None:
    wrong = {**SECTION, "init_args": {"probability": 9.0}}
    with pytest.raises(ValueError, match=r"^`x` cannot be built: `probability` must be in \[0, 1\], got 9.0"):
        build_object(Callback, wrong, "`x`")
