"""The backbone is registered as soon as timm is there."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "before", ["", "import timm", "import importlib.util; importlib.util.find_spec('timm')", "import anomalib.models"]
)
def test_backbone_is_registered_when_timm_was_looked_for_before(before) -> None:
    code = f"""
import anomalib_synth, sys
{before}
import timm
assert timm.is_model(anomalib_synth.BACKBONE_NAME)
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("anomalib_synth")]
assert timm.__spec__.loader is timm.__loader__
"""
    subprocess.run([sys.executable, "-c", code], check=True)
