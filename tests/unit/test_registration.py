"""The backbone's name is known to timm, whoever asked for timm first."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("before", ["", "importlib.util.find_spec('timm')", "[importlib.util.find_spec('timm')] * 3"])
def test_backbone_is_registered_when_somebody_asked_for_timm_before(before) -> None:
    code = (
        f"import importlib.util, sys, anomalib_synth\n{before}\nimport timm\n"
        "assert timm.is_model('efficientnet_lite0_bundled')\n"
        "assert timm.__spec__.loader is timm.__loader__\n"
        "assert not [f for f in sys.meta_path if type(f).__module__.startswith('anomalib_synth')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
