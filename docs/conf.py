"""Configuration of Sphinx: sphinx-build -W -b html docs docs/_build/html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import clipcal

project = "clipcal"
author = "The clipcal developers"
project_copyright = "2026, the clipcal developers"
version = release = clipcal.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "numpydoc",
    "package_map",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
root_doc = "index"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
extlinks = {
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
    "doi": ("https://doi.org/%s", "doi:%s"),
}

maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "clipcal"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
# Only the API reference has pages below it, which a sidebar can list.
html_sidebars = {
    path.stem: []
    for path in Path(__file__).parent.iterdir()
    if path.suffix in (".rst", ".md") and path.stem != "api"
}
html_show_sourcelink = False


def skip_foreign(app, what, name, obj, skip, options):
    """Leave out what classes inherit from scikit-learn and torch, which document it themselves."""
    home = getattr(getattr(obj, "fget", obj), "__module__", None)
    return True if home and not home.startswith("clipcal.") else None


def setup(app):
    app.connect("autodoc-skip-member", skip_foreign)
