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
"""The package's physical families that have an outline: what models that draw into one learn."""
_loaded: set[str] = set()


def register_family(family: Family) -> Family:
    """Add a family of your own, for ``families:`` of every generator and command to name.

    Call it at the top level of a module: worker processes import the module of its ``draw`` before they draw. A command
    finds it where the module's package has an entry point of the group ``anomalib_synth.families`` whose value is the
    family. Without ``families`` a generator of this process draws it beside the package's; generators that draw what
    a text says keep to the package's, which their models know.

    Args:
        family: The family; one of the same name that was added before is replaced.

    Returns:
        The family.

    Raises:
        ValueError: If the name is no lower-case identifier, or that of one of the package's families.
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
    """Register the families of installed packages, by their entry points, those once that are not there yet.

    Raises:
        ValueError: If one is no family, or has a name of the package's.
    """
    for point in entry_points(group=GROUP):
        if point.value not in _loaded:
            _loaded.add(point.value)
            register_family(point.load())


def own_modules() -> tuple[str, ...]:
    """Return the modules in which users' families are written, for another process to import."""
    modules = dict.fromkeys(family.draw.__module__ for name, family in REGISTRY.items() if name not in OWN)
    return tuple(module for module in modules if module not in {"__main__", "__mp_main__"})


def import_modules(modules: Iterable[str]) -> None:
    """Import the modules of users' families in a worker process; a script's own is imported when it starts."""
    for module in modules:
        importlib.import_module(module)
