"""Loads the templates of the package's pages."""

from __future__ import annotations

import re
from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

PAGE = files("anomalib_synth.report") / "page"
_CODE = re.compile(r"`([^`\n]+)`")


def load_templates() -> Environment:
    """Return the templates of the pages; all inserted text is escaped.

    The filter ``prose`` shows names in backticks, as printed texts have them, as code.
    """
    environment = Environment(loader=PackageLoader("anomalib_synth.report", "page"), autoescape=True)
    environment.filters["prose"] = show_prose
    return environment


def show_prose(text: str) -> Markup:
    """Return a text as HTML, with names in backticks as code.

    Example:
        >>> str(show_prose("less than `min_recall` & <more>"))
        'less than <code>min_recall</code> &amp; &lt;more&gt;'
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))
