"""Sphinx configuration of the API documentation.

python -m sphinx -W -b html docs/api build/api
"""

project = "anomalib-synth"
author = "The anomalib-synth authors"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
napoleon_custom_sections = ["Shape"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_theme = "furo"
