"""Sphinx: `make docs` builds the site into build/site; a warning is an error."""

project = "decodiff-pipeline"
author = "The decodiff-pipeline authors"
copyright = "the decodiff-pipeline authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "decodiff-pipeline"
default_role = "code"
myst_heading_anchors = 4  # links to headings as on GitHub, checked
myst_links_external_new_tab = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
suppress_warnings = ["myst.strikethrough"]
