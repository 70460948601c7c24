"""The package's pages."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader

PAGE = files("anomalib_synth.report") / "page"


def load_templates() -> Environment:
    """Return the templates of the pages; whatever is filled in is escaped."""
    return Environment(loader=PackageLoader("anomalib_synth.report", "page"), autoescape=True)
