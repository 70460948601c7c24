"""The bundled backbone is there whoever imports timm, and whenever."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHECK = "import timm; assert timm.is_model('efficientnet_lite0_bundled')"
BEFORE = [
    "import anomalib_synth",
    "import timm, anomalib_synth",
    "import anomalib_synth, timm.models",
    "import anomalib_synth, importlib.util; importlib.util.find_spec('timm')",
    "import anomalib_synth, importlib.util; importlib.util.find_spec('timm.models')",
    "import anomalib_synth.models.bundled_backbone",
    "import anomalib_synth.generators",
    "from anomalib.models import Padim; import anomalib_synth",
]
LOADER = "import anomalib_synth, timm; assert type(timm.__spec__.loader).__name__ == 'SourceFileLoader'"
EACH_APART = """
import json, os, sys, torch, torchvision, traceback  # what takes long and has no part in it
assert not {"timm", "anomalib_synth"} & set(sys.modules)
for number, code in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        with open(f"{sys.argv[2]}/{number}", "w") as file:
            try:
                exec(code, {})
                file.write("fine")
            except BaseException:
                traceback.print_exc(file=file)
            file.flush()
            os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, str]:
    """How each piece of code ended, in an interpreter that had imported neither timm nor this package."""
    codes = {before: f"{before}\n{CHECK}" for before in BEFORE} | {LOADER: LOADER}
    folder = tmp_path_factory.mktemp("said")
    subprocess.run([sys.executable, "-c", EACH_APART, json.dumps(list(codes.values())), str(folder)], check=True)
    return {name: (folder / str(number)).read_text() for number, name in enumerate(codes)}


@pytest.mark.parametrize("before", BEFORE)
def test_backbone_is_registered_when_timm_is_imported(before, outcomes) -> None:
    assert outcomes[before] == "fine"


def test_loader_is_timms_own_when_it_is_imported(outcomes) -> None:
    assert outcomes[LOADER] == "fine"


def test_timm_waits_when_the_package_is_imported() -> None:
    subprocess.run([sys.executable, "-c", "import sys, anomalib_synth; assert 'timm' not in sys.modules"], check=True)
