"""Settings of a store."""

from __future__ import annotations

import pytest

from anomalib_synth.engines.settings import check_same, choose_settings
from anomalib_synth.generators import RuleBasedGenerator

COMMON = {"seed": 0, "image_size": None, "split": "train", "max_normals": 4}


def test_equal_settings_pass_when_they_come_back_from_json() -> None:
    kept = choose_settings(RuleBasedGenerator(strength=(0.2, 0.4)), **COMMON)
    check_same({**kept, "other": 1}, choose_settings(RuleBasedGenerator(strength=(0.2, 0.4)), **COMMON), "store")


def test_the_difference_is_named_when_settings_differ() -> None:
    kept = choose_settings(RuleBasedGenerator(["scratch"]), **COMMON)
    wanted = choose_settings(RuleBasedGenerator(["scratch"], strength=(0.2, 0.4)), **COMMON | {"seed": 3})
    with pytest.raises(ValueError, match="other settings") as error:
        check_same(kept, wanted, "store")
    assert "generator.init_args.strength: [0.3, 1.0] in the store, [0.2, 0.4] now" in str(error.value)
    assert "seed: 0 in the store, 3 now" in str(error.value)
