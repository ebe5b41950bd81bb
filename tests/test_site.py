"""The documentation builds without warnings, has no broken links, needs no network, and fits on screens."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Browser, find_browser, open_browser
from written_pages import GENERATED, ROOT

NEEDED = ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme", "sphinx_gallery", "ziamath")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pages, with the examples shown but not run."""
    for module in NEEDED:
        pytest.importorskip(module)
    # Build from a copy, as autosummary and the gallery write next to the sources.
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns(*GENERATED))
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name in ("clipcal", "CHANGELOG.md"):
        (folder / name).symlink_to(ROOT / name)
    options = ["-W", "--keep-going", "-q", "-b", "html", "-D", "plot_gallery=0"]
    command = [sys.executable, "-m", "sphinx", *options, str(folder / "docs"), str(folder / "html")]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder / "html"


def html_files(site: Path) -> list[Path]:
    """Return the pages; the theme has templates of its own among the static files."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


@dataclass
class Page(HTMLParser):
    """What a page refers to, and the anchors that others may refer to."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.resources.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.resources.append(values["href"])

    def target(self, reference: str) -> tuple[Path, str] | None:
        """Return the file and the anchor of a reference inside the site, and None for others."""
        parts = urlsplit(reference)
        if parts.scheme or parts.netloc:
            return None
        place = self.path.parent / unquote(parts.path) if parts.path else self.path
        return place.resolve(), unquote(parts.fragment)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path.resolve()) for path in html_files(site)}


def test_sections_and_the_map_of_packages_are_there(site):
    for section in ("start", "guide", "gallery", "method", "results", "api", "development"):
        assert (site / section / "index.html").is_file()
    assert "<svg" in (site / "development" / "architecture.html").read_text(encoding="utf-8")


def test_links_inside_the_site_lead_somewhere(pages):
    broken = []
    for page in pages.values():
        for reference in page.links + page.resources:
            found = page.target(reference)
            if found is None:
                continue
            path, anchor = found
            if not path.exists() or (anchor and path in pages and anchor not in pages[path].anchors):
                broken.append(f"{page.path.name}: {reference}")
    assert broken == []


def test_pages_load_nothing_from_the_network(pages):
    outside = {
        reference
        for page in pages.values()
        for reference in page.resources
        if urlsplit(reference).scheme in ("http", "https") or reference.startswith("//")
    }
    assert outside == set()


def test_formulas_are_drawn(pages, site):
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert "\\(" not in text and "MathJax" not in text, path.name
    assert (site / "method" / "methods.html").read_text(encoding="utf-8").count('class="math"') > 50


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("No Chromium is installed.")
    with open_browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


# Tables that are wider than their place, with the excess in pixels.
OVERFLOWS = """
[...document.querySelectorAll(".bd-article .pst-scrollable-table-container")]
    .filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => e.innerText.trim().slice(0, 40) + ": " + (e.scrollWidth - e.clientWidth))
"""
PAGE_EXCESS = "document.documentElement.scrollWidth - window.innerWidth"


def written_pages(site: Path) -> list[Path]:
    """Return the pages that are not made from docstrings, and three that are."""
    found = [path for path in html_files(site) if "generated" not in path.parts]
    return found + sorted((site / "api" / "generated").glob("*.html"))[::60]


@pytest.mark.parametrize(("width", "height"), [(1300, 900), (420, 800)])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_on_screens(site, browser, width, height, dark):
    wrong = []
    for path in written_pages(site):
        browser.open(path, width, height, dark)
        name = path.relative_to(site).as_posix()
        if (excess := browser.run(PAGE_EXCESS)) > 1:
            wrong.append(f"{name} is wider than the screen by {excess} pixels")
        header = browser.run("document.querySelector('header.bd-header, .bd-header').offsetHeight")
        if header > 90:
            wrong.append(f"{name} has a header of {header} pixels")
        theme = browser.run("document.documentElement.dataset.theme")
        if theme != ("dark" if dark else "light"):
            wrong.append(f"{name} has the theme {theme}")
        wrong += [f"{name}: {problem}" for problem in browser.problems()]
    assert wrong == []


def test_tables_of_the_guide_are_not_cut_on_a_desktop(site, browser):
    cut = {}
    for section in ("start", "guide", "development"):
        for path in sorted((site / section).glob("*.html")):
            browser.open(path, 1300, 900)
            if found := browser.run(OVERFLOWS):
                cut[path.relative_to(site).as_posix()] = found
    assert cut == {}
