"""Imports point one way, and importing the package stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "anomalib_synth"
LAYERS = [
    {"_version", "sample"},
    {"images"},
    {"functional", "models", "store"},
    {"quality"},
    {"retrieval"},
    {"generators"},
    {"transforms", "data", "losses", "adapters", "fitting"},
    {"callbacks", "detectors"},
    {"engines", "evidence"},
    {"report"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def imported_parts(file: Path) -> set[str]:
    """The top-level parts of the package that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module or ""]
            if node.module == "anomalib_synth":
                names = [f"anomalib_synth.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("anomalib_synth.")}
    return parts


@pytest.mark.parametrize("file", [file for file in FILES if file.parent != ROOT or file.stem != "__init__"], ids=str)
def test_imports_point_one_way(file) -> None:
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for part in imported_parts(file):
        assert part == own or LEVEL[part] < LEVEL[own], f"{own} must not import {part}"


def test_every_part_has_a_layer() -> None:
    assert FILES
    assert {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in FILES} <= {*LEVEL, "__init__"}


def test_import_is_light() -> None:
    code = (
        "import sys, anomalib_synth, anomalib_synth.generators\n"
        "heavy = {'diffusers', 'open_clip', 'faiss', 'transformers', 'anomalib', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_files_stay_small(file) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_internals_of_the_host_are_named_in_one_file() -> None:
    names = ("perlin_generator", "augmentor", "augmenter")
    for file in FILES:
        if file.name != "adapters.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert not used & set(names), file
