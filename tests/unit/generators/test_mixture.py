"""Mixtures: which generator draws which sample; and generators built from their configs."""

from __future__ import annotations

from collections import Counter

import torch

from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator, SampleChecks, build_generator

IMAGES = torch.full((96, 3, 32, 32), 0.5)


def count_families(generator: MixtureGenerator) -> Counter[str]:
    sample = generator(IMAGES, seeds=range(len(IMAGES)))
    return Counter(record.family for record in sample.provenance if record.family)


def test_a_mixture_in_a_mixture_uses_all_of_its_parts() -> None:
    inner = MixtureGenerator([RuleBasedGenerator(["cutout"]), RuleBasedGenerator(["stain"])])
    families = count_families(MixtureGenerator([inner, RuleBasedGenerator(["scratch"])], weights=[2, 1]))
    total = families.total()
    assert total > 80
    assert all(0.2 < families[name] / total < 0.5 for name in ("cutout", "stain", "scratch"))


def test_weights_are_shares() -> None:
    families = count_families(
        MixtureGenerator([RuleBasedGenerator(["cutout"]), RuleBasedGenerator(["scratch"])], weights=[9, 1])
    )
    assert 0.8 < families["cutout"] / families.total() < 0.98


def test_a_config_may_name_some_of_the_checks() -> None:
    config = {
        "class_path": "anomalib_synth.generators.RuleBasedGenerator",
        "init_args": {"families": ["scratch"], "checks": {"min_visibility": 2.0}},
    }
    assert build_generator(config).checks == SampleChecks(min_visibility=2.0)
    config["init_args"]["checks"] = {"area": [0.01, 0.2]}
    assert build_generator(config).checks.area == (0.01, 0.2)
