"""Families of users: registered, drawn, named in configurations, and known to worker processes."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from anomalib_synth.generators import AutoregressiveGenerator, Family, RuleBasedGenerator, build_generator
from anomalib_synth.generators.families import registry
from anomalib_synth.generators.families.registry import OWN, REGISTRY, own_modules, register_family

EXAMPLE = Path(__file__).parents[4] / "examples" / "own_family.py"


@pytest.fixture
def drip(monkeypatch, tmp_path) -> Family:
    """The example's family, in a module of its own."""
    (tmp_path / "plant_families.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_loaded", set())
    for name in [name for name in REGISTRY if name not in OWN]:
        monkeypatch.delitem(REGISTRY, name)
    monkeypatch.delitem(sys.modules, "plant_families", raising=False)
    import plant_families

    monkeypatch.setattr(sys, "path", sys.path)
    yield plant_families.DRIP
    REGISTRY.pop("glue_drip", None)
    sys.modules.pop("plant_families", None)


def test_family_of_ones_own_takes_thirty_lines() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    own = [node for node in tree.body if getattr(node, "name", "") != "main" and not isinstance(node, ast.If)]
    assert sum(node.end_lineno - node.lineno + 1 for node in own[1:]) <= 30  # the first is the module's docstring


def test_family_is_drawn_and_rebuilt_when_it_is_registered(drip) -> None:
    images = torch.full((3, 3, 96, 96), 0.6)
    sample = RuleBasedGenerator([drip.name], strength=(0.7, 1.0))(images, seeds=range(3))
    assert sample.accepted.all()
    assert all("drip of glue" in caption for caption in sample.caption)
    again = build_generator(sample.provenance[0].config)(images, seeds=range(3))
    assert torch.equal(again.image, sample.image)
    assert drip.name in RuleBasedGenerator().families
    assert drip.name not in AutoregressiveGenerator().shapes.families


def test_family_is_known_to_another_process_when_a_generator_is_sent(drip, tmp_path) -> None:
    (tmp_path / "generator").write_bytes(pickle.dumps(RuleBasedGenerator([drip.name], strength=(0.7, 1.0))))
    code = (
        f"import pickle, sys, torch; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"generator = pickle.load(open({str(tmp_path / 'generator')!r}, 'rb'))\n"
        "assert generator(torch.full((1, 3, 96, 96), 0.6), seeds=[0]).accepted.all()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert own_modules() == ("plant_families",)


def test_family_is_found_when_a_package_has_an_entry_point(drip, monkeypatch) -> None:
    del REGISTRY[drip.name]
    point = EntryPoint(name="drip", value="plant_families:DRIP", group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])
    assert RuleBasedGenerator([drip.name]).families == {drip.name: 1.0}
    assert drip.name in RuleBasedGenerator.available_families()


@pytest.mark.parametrize("name", ["scratch", "Glue", "glue-drip", ""])
def test_name_is_refused_when_it_is_taken_or_no_identifier(drip, name) -> None:
    changed = Family(**{**vars(drip), "name": name})
    with pytest.raises(ValueError, match="`family` must be a Family whose name"):
        register_family(changed)
    with pytest.raises(ValueError, match="got a str"):
        register_family(name)


def test_unknown_family_says_how_one_is_registered() -> None:
    with pytest.raises(ValueError, match="register_family"):
        RuleBasedGenerator(["no_such"])
