"""The bundled backbone is there whoever imports timm, and whenever."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = "import timm; assert timm.is_model('efficientnet_lite0_bundled')"


@pytest.mark.parametrize(
    "before",
    [
        "import anomalib_synth",
        "import timm, anomalib_synth",
        "import anomalib_synth, timm.models",
        "import anomalib_synth, importlib.util; importlib.util.find_spec('timm')",
        "import anomalib_synth, importlib.util; importlib.util.find_spec('timm.models')",
        "import anomalib_synth.models.bundled_backbone",
        "import anomalib_synth.generators",
        "from anomalib.models import Padim; import anomalib_synth",
    ],
)
def test_backbone_is_registered_when_timm_is_imported(before) -> None:
    subprocess.run([sys.executable, "-c", f"{before}\n{CHECK}"], check=True)


def test_loader_is_timms_own_when_it_is_imported() -> None:
    code = "import anomalib_synth, timm; assert type(timm.__spec__.loader).__name__ == 'SourceFileLoader'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_timm_waits_when_the_package_is_imported() -> None:
    subprocess.run([sys.executable, "-c", "import sys, anomalib_synth; assert 'timm' not in sys.modules"], check=True)
