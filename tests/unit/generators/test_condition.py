"""What a call asks for: checked, taken row by row, and described."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.generators.condition import Condition

IMAGES = torch.zeros(3, 3, 8, 8)
MASKS = torch.arange(1.0, 4).view(3, 1, 1, 1).expand(3, 1, 8, 8)
TEXTS, OTHERS = ["a", "b", "c"], ["d", "e", "f"]


@pytest.mark.parametrize(
    "asked",
    [
        {"prompts": TEXTS, "prompts_to": OTHERS, "mix": -0.1},
        {"prompts": TEXTS, "prompts_to": OTHERS, "mix": 1.1},
        {"prompts": TEXTS, "mix": 0.5},
        {"prompts_to": OTHERS},
        {"mix": 0.5},
    ],
)
def test_mix_is_refused_when_it_is_out_of_range_or_there_is_nothing_to_mix(asked) -> None:
    with pytest.raises(ValueError, match=r"`mix` must be in \[0, 1\] and 0 without `prompts_to`"):
        Condition.check(IMAGES, **asked)


@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_what_is_asked_is_kept_when_it_fits(mix) -> None:
    condition = Condition.check(IMAGES, masks=MASKS, prompts=TEXTS, prompts_to=OTHERS, mix=mix, names=["x", "y", "z"])
    assert condition.asked == {"masks", "prompts", "prompts_to"}
    taken = condition.take([2, 0])
    assert taken.masks[:, 0, 0, 0].tolist() == [3, 1]
    assert (taken.prompts, taken.prompts_to, taken.mix, taken.names) == (["c", "a"], ["f", "d"], mix, ["z", "x"])
    arguments = condition.to_arguments()
    assert arguments.pop("masks") is MASKS
    expected = {"prompts": TEXTS, "prompts_to": OTHERS, "names": ["x", "y", "z"]} | ({"mix": mix} if mix else {})
    assert {name: list(value) if name != "mix" else value for name, value in arguments.items()} == expected
    described = {"prompt": "b", "prompt_to": "e", "name": "y"} | ({"mix": mix} if mix else {})
    assert condition.describe(1) == described


def test_nothing_is_asked_when_nothing_is_given() -> None:
    condition = Condition.check(IMAGES)
    assert condition == Condition() == condition.take([1])
    assert condition.asked == frozenset()
    assert condition.to_arguments() == condition.describe(0) == {}


@pytest.mark.parametrize("name", ["prompts", "names"])
def test_texts_are_refused_when_there_is_not_one_an_image(name) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        Condition.check(IMAGES, **{name: ["a", "b"]})
