"""From configs to generators: those of old stores, settings in every form, and what is refused."""

from __future__ import annotations

import pytest

from anomalib_synth.generators import (
    AutoregressiveGenerator,
    DiffusionRetrievalGenerator,
    RuleBasedGenerator,
    SampleChecks,
    build_generator,
)
from anomalib_synth.models.diffusion import DiffusionSettings
from anomalib_synth.models.editing import Sampling
from anomalib_synth.retrieval import FilterSettings

HERE = "anomalib_synth.generators."
CHECKS = {"min_visibility": 1.0, "min_agreement": 0.2, "min_foreground": 0.6, "area": [0.0001, 0.6]}
COMMON = {"checks": CHECKS, "foreground": "auto", "max_attempts": 4, "seed": 0}
RULES = {
    "class_path": f"{HERE}RuleBasedGenerator",
    "init_args": {
        "families": {"scratch": 1.0}, "strength": [0.3, 1.0], "size": [0.04, 0.25], "texture_dir": None, **COMMON,
    },
}  # fmt: skip
# As version 0.2.0 wrote them into stores before the builder read annotations.
KEPT = [
    RULES,
    {
        "class_path": f"{HERE}MixtureGenerator",
        "init_args": {
            "generators": [
                {
                    "class_path": f"{HERE}ScoredGenerator",
                    "init_args": {"generator": RULES, "encoder": None, "share_of_window": 0.75, "seed": 0},
                },
                {
                    "class_path": f"{HERE}StoredGenerator",
                    "init_args": {
                        "store": "s", "min_quality": 0.0, "split": "train", "paired": True, "families": None, "seed": 0,
                    },
                },
            ],
            "weights": [2.0, 1.0],
            "seed": 3,
        },
    },
    {
        "class_path": f"{HERE}RealDefectGenerator",
        "init_args": {
            "defects": ["a.png"], "masks": None, "skip_unmarked": False, "blend": "poisson", "strength": [0.7, 1.0],
            "scale": [0.8, 1.25], "turn": True, "mirror": True, **COMMON,
        },
    },
    {
        "class_path": f"{HERE}LookAlikeGenerator",
        "init_args": {
            "defects": "d", "marks": None, "weights": "w", "text_encoder": None, "edited": 0.5, "variation": [0.2, 0.6],
            "blend": "poisson", "strength": [0.7, 1.0], "scale": [0.8, 1.25], "turn": True, "mirror": True, **COMMON,
        },
    },
]  # fmt: skip


@pytest.mark.parametrize("config", KEPT, ids=lambda config: config["class_path"].rpartition(".")[2])
def test_config_comes_back_when_it_is_built_from_an_old_store(config) -> None:
    assert build_generator(config).config == config


def test_settings_are_built_when_they_are_nested() -> None:
    words = {"class_path": f"{HERE}AutoregressiveGenerator", "init_args": {"sampling": {"temperature": 0.5}}}
    assert build_generator(words).sampling == Sampling(temperature=0.5)
    edits = {"class_path": f"{HERE}DiffusionGenerator", "init_args": {"editing": {"num_inference_steps": 2}}}
    given = {"generator": edits, "retrieval": {"quantile": 0.1}}
    built = build_generator({"class_path": f"{HERE}DiffusionRetrievalGenerator", "init_args": given})
    assert isinstance(built, DiffusionRetrievalGenerator)
    assert built.generator.editing == DiffusionSettings(num_inference_steps=2)
    assert built.retrieval == FilterSettings(quantile=0.1)


def test_settings_are_built_when_their_class_is_named() -> None:
    named = {"class_path": f"{HERE}SampleChecks", "init_args": {"area": [0.01, 0.2]}}
    built = build_generator({"class_path": f"{HERE}RuleBasedGenerator", "init_args": {"checks": named}})
    assert built.checks == SampleChecks(area=(0.01, 0.2))


@pytest.mark.parametrize("init_args", [None, {}])
def test_defaults_are_taken_when_a_config_names_no_arguments(init_args) -> None:
    config = {"class_path": f"{HERE}AutoregressiveGenerator", "init_args": init_args}
    assert build_generator(config).config == AutoregressiveGenerator().config
    assert build_generator({"class_path": f"{HERE}RuleBasedGenerator"}).config == RuleBasedGenerator().config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "`config` must be a mapping with `class_path` and `init_args`, got None"),
        ({}, "`class_path` must name a generator of a module that is imported, got None"),
        ({"class_path": f"{HERE}RuleBasedGenerator", "init_args": ["scratch"]}, "`config` must be a mapping"),
        ({"class_path": f"{HERE}AnomalyGenerator"}, "`class_path` must name a generator"),
        ({"class_path": f"{HERE}ProposingGenerator"}, "`class_path` must name a generator"),
        ({"class_path": "os.path"}, "`class_path` must name a generator"),
        (
            {"class_path": f"{HERE}RuleBasedGenerator", "init_args": {"familys": []}},
            "`init_args` of RuleBasedGenerator must be among families, strength, .*, got 'familys' among them",
        ),
        (
            {"class_path": f"{HERE}StoredGenerator", "init_args": {"seed": 1}},
            "`init_args` of StoredGenerator must be among store, .*, got none for 'store'",
        ),
        (
            {"class_path": f"{HERE}RuleBasedGenerator", "init_args": {"checks": {"min_visibilty": 1}}},
            "`init_args` of SampleChecks must be among min_visibility, .*, got 'min_visibilty' among them",
        ),
        (
            {"class_path": f"{HERE}ScoredGenerator", "init_args": {"generator": {"class_path": "os.path"}}},
            "`class_path` must name a generator",
        ),
    ],
)
def test_config_is_refused_when_it_describes_no_generator(config, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_generator(config)
