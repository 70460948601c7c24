"""The registry of rule-based families, by name: the package's, and those that users add."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from anomalib_synth.generators.families import literature, physical
from anomalib_synth.generators.families.family import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUP = "anomalib_synth.families"
REGISTRY: dict[str, Family] = {family.name: family for family in [*literature.FAMILIES, *physical.FAMILIES]}
OWN = frozenset(REGISTRY)
PHYSICAL = tuple(family.name for family in REGISTRY.values() if family.physical and not family.regional)
"""The package's physical families that have an outline. Models that draw into outlines learn these."""
_loaded: set[str] = set()


def register_family(family: Family) -> Family:
    """Add a family of your own, so that ``families:`` of every generator and command can name it.

    Call this function at the top level of a module: worker processes import the module of the family's ``draw`` before
    they draw. For commands to find the family, its package needs an entry point of the group
    ``anomalib_synth.families`` whose value is the family. A rule-based generator without ``families`` draws it too.
    Generators that draw what a text says keep to the families of this package, which their models know.

    Args:
        family: The family. It replaces one of the same name that was added before.

    Returns:
        The family.

    Raises:
        ValueError: If the name is not a lower-case identifier, or belongs to a family of this package.
    """
    if not isinstance(family, Family) or not re.fullmatch(r"[a-z][a-z0-9_]*", family.name) or family.name in OWN:
        name = repr(family.name) if isinstance(family, Family) else f"a {type(family).__name__}"
        msg = (
            "`family` must be a Family whose name has lower-case letters, digits and underscores and is none of the "
            f"package's, got {name}. Give it another name."
        )
        raise ValueError(msg)
    REGISTRY[family.name] = family
    return family


def load_installed_families() -> None:
    """Register the families of installed packages, found by their entry points; each is registered only once.

    Raises:
        ValueError: If an entry point is not a family, or has the name of a family of this package.
    """
    for point in entry_points(group=GROUP):
        if point.value not in _loaded:
            _loaded.add(point.value)
            register_family(point.load())


def own_modules() -> tuple[str, ...]:
    """Return the modules that define users' families, so that another process can import them."""
    modules = dict.fromkeys(family.draw.__module__ for name, family in REGISTRY.items() if name not in OWN)
    return tuple(module for module in modules if module not in {"__main__", "__mp_main__"})


def import_modules(modules: Iterable[str]) -> None:
    """Import the modules of users' families in a worker process, which has imported the main script already."""
    for module in modules:
        importlib.import_module(module)
