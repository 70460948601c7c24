"""The command `anomalib-synth families`: what rule-based defects there are."""

from __future__ import annotations


def families() -> None:
    """List the families of rule-based defects, and where each comes from."""
    from rich.console import Console
    from rich.table import Table

    from anomalib_synth.generators.families.registry import REGISTRY, load_installed_families

    load_installed_families()
    table = Table("family", "kind", "source")
    for family in REGISTRY.values():
        table.add_row(family.name, "physical" if family.physical else "literature", family.source)
    Console().print(table)
