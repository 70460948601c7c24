"""Prompts: read, and turned into shape and place."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.generators.families import PHYSICAL, REGISTRY
from anomalib_synth.generators.prompts import SHAPES, family_of, likeness, read_prompts, restrict_to_position


def test_every_physical_family_can_be_asked_for() -> None:
    assert set(SHAPES) == set(PHYSICAL)


def test_a_region_without_an_outline_is_no_shape_for_a_text() -> None:
    faint = {family.name for family in REGISTRY.values() if family.regional}
    assert faint == {"uneven", "wear", "streaks", "fray"}
    assert not faint & set(PHYSICAL)


def test_own_captions_name_their_own_family() -> None:
    from anomalib_synth.generators import RuleBasedGenerator

    generator = RuleBasedGenerator(list(SHAPES))
    named = {name: set() for name in SHAPES}
    for seed in range(600):
        family, params = generator.make_params(seed, 256, 256)
        named[family.name].add(family_of(family.caption(params)))
    assert {name for name, found in named.items() if found != {name}} <= {"chip", "corrosion", "thread_pull", "bubble"}
    assert all(name in found for name, found in named.items())


@pytest.mark.parametrize(("prompt", "family"), [("two hairs", "fibre"), ("A Rust spot", "corrosion"), ("xyz", None)])
def test_words_name_a_family(prompt, family) -> None:
    assert family_of(prompt) == family


def test_prompts_come_from_a_list_or_a_file(tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# comment\n\na dark scratch\n a stain \n", encoding="utf-8")
    assert read_prompts(file) == read_prompts(str(file)) == ["a dark scratch", "a stain"]
    assert read_prompts(["a dark scratch", ""]) == ["a dark scratch"]


@pytest.mark.parametrize("prompts", [[], ["", "  "], "no/such/file.txt"])
def test_no_prompt_is_an_error(prompts) -> None:
    with pytest.raises(ValueError, match="`prompts` must"):
        read_prompts(prompts)


def test_likeness_counts_common_words() -> None:
    assert likeness("a long dark scratch", "a long bright scratch") == 3


@pytest.mark.parametrize(
    ("prompt", "rows", "columns"),
    [
        ("a stain at the top left", (0, 4), (0, 4)),
        ("a stain on the right", (0, 12), (8, 12)),
        ("in the centre", (4, 8), (4, 8)),
    ],
)
def test_position_words_restrict_the_cells(prompt, rows, columns) -> None:
    expected = np.zeros((12, 12), dtype=bool)
    expected[slice(*rows), slice(*columns)] = True
    assert np.array_equal(restrict_to_position(prompt, None), expected)


def test_position_off_the_part_is_given_up() -> None:
    part = np.zeros((6, 6), dtype=bool)
    part[4:, 4:] = True
    assert np.array_equal(restrict_to_position("top left", part), part)
    assert restrict_to_position("a stain", None) is None


def test_a_vocabulary_gives_every_combination() -> None:
    texts = read_prompts(
        {
            "types": ["scratch", "oil stain"],
            "sizes": ["small", ""],
            "appearances": ["dark"],
            "positions": ["", "top left"],
        }
    )
    assert len(texts) == len(set(texts)) == 8
    assert {"a small dark scratch", "a dark oil stain top left"} <= set(texts)
    assert read_prompts({"types": ["oil stain"]}) == ["an oil stain"]


@pytest.mark.parametrize(
    "vocabulary",
    [
        {},
        {"sizes": ["small"]},
        {"types": ["scratch"], "colours": ["red"]},
        {"types": "scratch"},
        {"types": []},
        {"types": [""]},
    ],
)
def test_a_wrong_vocabulary_is_refused(vocabulary) -> None:
    with pytest.raises(ValueError, match="`prompts` as a vocabulary must have `types`"):
        read_prompts(vocabulary)
