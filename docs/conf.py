"""Configuration of Sphinx: sphinx-build -W -b html docs docs/_build/html."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

# The examples of the gallery, and autodoc, import this checkout. One thread is as fast for models this small.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "clipcal"
author = "The clipcal developers"
project_copyright = "2026, the clipcal developers"
version = release = version_of("clipcal")

extensions = [
    "formulas",
    "myst_parser",
    "numpydoc",
    "package_map",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
root_doc = "index"
html_math_renderer = "svg"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
extlinks = {
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
    "doi": ("https://doi.org/%s", "doi:%s"),
}
# The names that the pages refer to are listed in files, so that a build needs no network.
intersphinx_mapping = {
    "sklearn": ("https://scikit-learn.org/stable/", str(HERE / "inventories" / "sklearn.txt")),
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "ignore_pattern": "/notebooks/",
    "abort_on_example_error": True,
    "backreferences_dir": "api/generated/examples",
    "doc_module": ("clipcal",),
    "reference_url": {"clipcal": None},
    "min_reported_time": 1,
    "parallel": 2,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
}

maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "clipcal"
html_static_path = ["_static"]
html_css_files = ["clipcal.css"]
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}
html_sidebars = {"index": []}
html_show_sourcelink = False


def skip_foreign(app, what, name, obj, skip, options):
    """Leave out what classes inherit from scikit-learn and torch, which document it themselves."""
    home = getattr(getattr(obj, "fget", obj), "__module__", None)
    return True if home and not home.startswith("clipcal.") else None


def setup(app):
    app.connect("autodoc-skip-member", skip_foreign)
