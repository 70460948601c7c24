"""Imports point one way, and importing the package stays light."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2] / "anomalib_synth"
LAYERS = [
    {"registration", "_version", "installation", "progress", "sample"},
    {"images"},
    {"functional", "models", "store", "host", "demo"},
    {"defects", "encoders"},
    {"quality", "retrieval"},
    {"generators"},
    {"transforms", "data", "losses", "fitting"},
    {"callbacks", "detectors"},
    {"engines", "calibration"},
    {"comparison"},
    {"learning"},
    {"prediction"},
    {"report"},
    {"building"},
    {"commands"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


TESTS = Path(__file__).parents[1]
# Tests of what no single module holds: the package's own rules, and what every generator keeps.
ACROSS = {
    "test_architecture.py", "test_contributing.py", "generators/test_contract.py", "generators/test_every_generator.py",
    "generators/test_bad_input.py", "generators/test_precision.py",
}  # fmt: skip


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


def test_import_counts_when_it_is_for_type_checking_only(tmp_path) -> None:
    file = tmp_path / "one.py"
    file.write_text("if TYPE_CHECKING:\n    from anomalib_synth.report.review import serve\n")
    assert imported_parts(file) == {"report"}


def test_a_unit_test_is_named_after_the_module_it_tests() -> None:
    files = {file.relative_to(TESTS / "unit") for file in (TESTS / "unit").rglob("test_*.py")}
    parts = [*FILES, *(each.with_suffix(".py") for each in ROOT.rglob("*") if each.is_dir())]  # and kept weights
    modules = {file.relative_to(ROOT).with_name(f"test_{file.name}") for file in parts}
    assert {file.as_posix() for file in files - modules} == ACROSS


def test_no_test_file_imports_another() -> None:
    found = {}
    for file in TESTS.rglob("test_*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if hasattr(node, "names")]
        names = {
            name
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
            for name in f"{getattr(node, 'module', '') or ''}.{alias.name}".split(".")
        }
        if others := {name for name in names if name.startswith("test_")}:
            found[str(file.relative_to(TESTS))] = others
    assert found == {}


LARGE = sorted(room for room in ROOT.iterdir() if len(list(room.rglob("*.py"))) >= 5)


@pytest.mark.parametrize("room", LARGE, ids=lambda room: room.name)
def test_readme_of_a_room_names_the_rooms_it_imports(room) -> None:
    said = (room / "README.md").read_text(encoding="utf-8").partition("**Imports.**")[2]
    rooms = {part for file in room.rglob("*.py") for part in imported_parts(file) if (ROOT / part).is_dir()}
    assert set(re.findall(r"`(\w+)`", said)) == rooms - {room.name}


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


def test_class_name_means_one_thing_when_the_whole_package_is_read() -> None:
    """Two classes of one name in two rooms are two things that a reader takes for one."""
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


# Names with an underscore that their packages document, a key of diffusers' files, and the ending of MVTec's masks.
DOCUMENTED = {"_asdict", "_replace", "_exit", "_class_name", "_mask", "_optional_components"}
# Methods of ours that a host calls by a private name: a datamodule of anomalib must list its files in ``_setup``, and
# PyTorch calls ``_load_from_state_dict`` on each module of a model, ``load_state_dict`` on the outermost one only.
HOOKS = {
    ("SyntheticDataModule", "_setup"),
    ("DemoParts", "_setup"),
    ("FeatureSelector", "_load_from_state_dict"),
    ("DiscriminativePadimModel", "_load_from_state_dict"),
}
# Where anomalib's models keep what we swap or watch: public attributes that nobody promised to keep.
SLOTS = {
    "augmenter", "perlin_generator", "augmentor", "sspcab_loss", "third_stage_loss", "focal_loss_quantile_threshold",
    "anomaly_map_generator",
}  # fmt: skip
OUTSIDE = [file for file in FILES if file.relative_to(ROOT).parts[0] != "host"]
PRIVATE = re.compile(r"_[^\W_]\w*")
BY_NAME = {"getattr", "setattr", "hasattr", "delattr", "__setattr__", "attrgetter", "get_nested_attr"}


def own_names(tree: ast.AST) -> set[str]:
    """Private names that a module or a class defines: in its body, or on ``self`` or ``cls``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) in {"self", "cls"} else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":  # in frozen dataclasses
            names |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()
    return {name for name in names if PRIVATE.fullmatch(str(name))}


@cache
def inherited_names() -> dict[str, set[str]]:
    """Private names by class of the package, with those of its bases of ours."""
    classes = {
        node.name: node
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }

    def collect(name: str) -> set[str]:
        node = classes.get(name)
        bases = [ast.unparse(base).split("[")[0] for base in node.bases] if node else []
        return set().union(own_names(node) if node else (), *map(collect, bases))

    return {name: collect(name) for name in classes}


def find_private(source: str) -> Iterator[str]:
    """Yield every use of a name in a module's source that is private to another package, or to another module."""
    tree = ast.parse(source)
    own = own_names(tree)
    reachable = own.union(*(inherited_names().get(n.name, ()) for n in ast.walk(tree) if isinstance(n, ast.ClassDef)))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            is_self = ast.unparse(node.value) in {"self", "cls", "super()"}
            names = [] if node.attr in (reachable if is_self else own) else [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            names = node.value.split(".") if re.fullmatch(r"[\w.]+", node.value) else []
            names = [name for name in names if name not in own and (PRIVATE.fullmatch(name) or name in SLOTS)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BY_NAME:
            texts = [arg.values[0] if isinstance(arg, ast.JoinedStr) else arg for arg in node.args]
            names = [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
            names = [name for name in names if name not in own]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            paths = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            names = [name for path in paths for name in path.split(".") if path != "anomalib_synth._version"]
        for name in names:
            is_private = name.startswith("_") and not name.startswith("__")
            if (is_private or name in SLOTS) and name not in DOCUMENTED:
                yield f"line {node.lineno}: {name}"


@pytest.mark.parametrize("file", OUTSIDE, ids=str)
def test_private_names_of_others_are_in_the_host_room(file) -> None:
    assert not list(find_private(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "loader._iterator = None",
        "trainer.fit_loop._restarting = False",
        "class Mine(AnomalibDataset):\n    def f(self):\n        return self._samples",
        "class Mine(AnomalibDataModule):\n    def setup(self):\n        super()._create_val_split()",
        "getattr(datamodule, '_setup')(None)",
        "getattr(post_processor, f'_{kind}_threshold')",
        "vars(datamodule)['_category']",
        "steps = ('setup', '_create_test_split')",
        "get_nested_attr(trainer, 'fit_loop._restarting')",
        "state['_image_threshold']",
        "from anomalib.data import _private",
        "from torch.utils.data._utils import collate",
        "import torch._dynamo",
        "from anomalib_synth.data.items import _as_tensor",
        "model.augmenter",
        "hasattr(model, 'perlin_generator')",
        "model.get_submodule('model.augmentor')",
    ],
)
def test_private_use_is_found_when_it_is_in_another_room(source) -> None:
    assert list(find_private(source))


def test_own_private_names_are_left_alone() -> None:
    source = (
        "_LIMIT = 3\n"
        "class Mine(RestoringCallback):\n"
        "    def __init__(self):\n"
        "        self._count = _LIMIT\n"
        "    def merge(self, other):\n"
        "        return self._count + other._count\n"
        "name = f'{split}_data'\n"
        "os._exit(0)\n"
        "from anomalib_synth._version import __version__\n"
    )
    assert not list(find_private(source))


@cache
def names_of_host(base: type) -> set[str]:
    """Private names of a class of anomalib, Lightning or PyTorch; none of another package's, or of one written in C."""
    if base.__module__.split(".")[0] not in {"anomalib", "lightning", "torch"}:
        return set()
    try:
        return own_names(ast.parse(textwrap.dedent(inspect.getsource(base))))
    except OSError:
        return set()


def test_no_class_of_ours_takes_a_private_name_of_its_host() -> None:
    """Such a name looks like ours to the test above."""
    found = set()
    for module in pkgutil.walk_packages([str(ROOT)], "anomalib_synth."):
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and cls.__module__.startswith("anomalib_synth"):
                theirs = set().union(*map(names_of_host, cls.__mro__))
                found |= {(cls.__name__, name) for name in theirs & inherited_names().get(cls.__name__, set())}
    assert found == HOOKS


def import_graph(package: Path) -> dict[str, set[str]]:
    """Which modules of a package each of them imports, for type checking and within functions too."""
    modules = {".".join(file.relative_to(ROOT.parent).with_suffix("").parts): file for file in package.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {path if path in modules else str(node.module) for path in found} & modules.keys()
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & modules.keys()
    return graph


@pytest.mark.parametrize("package", sorted({file.parent for file in FILES} - {ROOT}), ids=lambda path: path.name)
def test_modules_of_a_package_import_one_way(package) -> None:
    TopologicalSorter(import_graph(package)).prepare()  # a CycleError names the modules


def test_cycle_is_found_when_a_module_imports_back_for_type_checking(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "pack")
    (tmp_path / "pack" / "room").mkdir(parents=True)
    (tmp_path / "pack" / "room" / "one.py").write_text("from pack.room.two import b")
    (tmp_path / "pack" / "room" / "two.py").write_text("if TYPE_CHECKING:\n    from pack.room import one")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path / "pack" / "room")).prepare()
