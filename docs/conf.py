"""Sphinx configuration of the documentation.

python -m sphinx -W -b html docs build/docs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import fill_page

from anomalib_synth import __version__

project = "anomalib-synth"
author = "The anomalib-synth authors"
project_copyright = author
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "math_renderer"]
html_math_renderer = "mathml"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
napoleon_custom_sections = ["Shape"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = f"anomalib-synth {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False


def setup(app) -> None:
    """Fill the pages that are made from the package."""
    app.connect("source-read", lambda app, name, source: fill_page(name, source))
