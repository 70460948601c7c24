"""What is given to users: the wheel and the source archive."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import anomalib_synth, torch
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.cli import main
images = torch.full((2, 3, 96, 96), 0.5)
for generator in (RuleBasedGenerator(["stain"], foreground=None), AutoregressiveGenerator(foreground=None)):
    assert generator(images, seeds=[0, 1]).accepted.any(), generator
print(anomalib_synth.__file__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT))
    return out


def run(*command: str, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def test_the_wheel_works_outside_of_the_checkout(built, tmp_path) -> None:
    (wheel,) = built.glob("*.whl")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path / "site"),
        str(wheel),
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    shown = run(sys.executable, "-c", CODE, cwd=tmp_path, env=environment)
    assert Path(shown.split()[-1]).is_relative_to(tmp_path / "site")
    listed = run(sys.executable, "-m", "anomalib_synth.cli", "configs", cwd=tmp_path, env=environment)
    assert len(listed.splitlines()) == len(list((ROOT / "configs").rglob("*.yaml")))
    named = ("-m", "anomalib_synth.cli", "configs", "--name", "train/quickstart", "--where")
    where = run(sys.executable, *named, cwd=tmp_path, env=environment)
    assert Path(where.strip()).is_relative_to(tmp_path / "site")


def test_the_wheel_holds_the_models_and_the_pages(built) -> None:
    (wheel,) = built.glob("*.whl")
    sizes = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    bundle = [size for name, size in sizes.items() if "/default_bundle/" in name]
    assert len(bundle) == 4
    assert sum(bundle) <= 8 * 2**20
    assert "anomalib_synth/py.typed" in sizes
    assert any(name.endswith(".css") for name in sizes)
    assert not any(name.startswith("tests/") for name in sizes)


def test_the_source_archive_holds_the_tests_and_no_data(built) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [name.partition("/")[2] for name in opened.getnames()]
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/contract.py"} <= set(names)
    assert not any(name.startswith(("results/", "build/", "dist/", ".venv/")) for name in names)


def test_the_archives_are_fit_for_the_registry(built) -> None:
    shown = run(sys.executable, "-m", "twine", "check", "--strict", *(str(file) for file in built.iterdir()))
    assert shown.count("PASSED") == 2
