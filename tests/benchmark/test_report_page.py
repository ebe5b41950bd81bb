"""The page of a report, read in a browser."""

import json
import os
import re
import time

import pytest
from fake_results import VERSIONS, base_to_new_cells, few_shot_cells, transfer_cells, write_results

from clipcal.benchmark import read_results, write_report
from clipcal.benchmark._aggregate import Model, make_grids
from clipcal.benchmark._page import diagrams_of, embedded_json, heat_maps_of
from clipcal.metrics import calibration_bins

pytest.importorskip("jinja2")

NASTY = "</script><script>alert(1)</script> & \"q\" 'p' <b>"
SMALL = [*base_to_new_cells(["one", "two"], calibrators=["none", "temperature"]), *transfer_cells()]
HEADER = "#base-to-new_summary thead th:nth-child({}) button"
TAB, ENTER = ("Tab", 9), ("Enter", 13, "\r")


def page(folder, cells=SMALL, **options):
    return write_report(write_results(folder, cells, **options)) / "report.html"


# The content of the page.


def test_embedded_json_cannot_end_the_script_and_is_read_back():
    text = embedded_json({NASTY: ["\u2028", "é", 1.5, None]})
    assert not set("<>&") & set(text) and text.isascii()
    assert json.loads(text) == {NASTY: ["\u2028", "é", 1.5, None]}


def test_names_are_escaped(tmp_path):
    cells = base_to_new_cells([NASTY, "two"], [("zero-shot", "none"), (NASTY, "none"), (NASTY, NASTY)])
    text = page(
        tmp_path,
        cells,
        name=NASTY,
        failed=lambda cell: cell["seed"] == 3,
        error=NASTY,
        paper=[{"protocol": "base-to-new", "method": NASTY, "metric": "ece", "base": 1, "note": NASTY}],
        versions=lambda cell: {**VERSIONS, NASTY: NASTY},
    ).read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<b>" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text


def test_page_needs_no_other_files(tmp_path):
    text = page(tmp_path).read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r"<link|<img|<iframe|\ssrc=|@import|url\(", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}


def test_tables_are_accessible(tmp_path):
    text = page(tmp_path, missing=lambda cell: cell["seed"] == 3).read_text(encoding="utf-8")
    assert text.count("<table") == text.count("<caption>") > 3
    assert not re.findall(r"<th(?![^>]*scope=)(?=[\s>])", text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {target for target in re.findall(r'href="#([^"]+)"', text)} <= set(ids)


def test_heat_maps_hold_means_or_what_is_missing(tmp_path):
    lost = {"seed": 2, "regularizer": "DOR", "dataset": "one", "classes": "new", "calibrator": "none"}
    write_results(tmp_path, SMALL, missing=lambda cell: lost.items() <= cell.items())
    grid = make_grids(read_results(tmp_path))[0]
    data = heat_maps_of(grid)
    assert data["parts"] == ["base", "new", "joined"] and data["datasets"] == ("one", "two")
    names = [metric["id"] for metric in data["metrics"]]
    assert names == ["accuracy", "ece", "confidence", "brier", "log_loss"]
    row = next(i for i, model in enumerate(data["models"]) if model["label"] == "CoOp + DOR")
    assert (
        data["values"][0][1][row][0] == "2 of 3 seeds" and data["values"][0][1][row][2] == "1 of 2 data sets"
    )
    mean = grid.over_seeds(Model("CoOp", "DOR", "none", 16), "two", "base", "log_loss").mean
    assert data["values"][4][0][row][1] == round(mean, 6)
    ece = grid.over_seeds(Model("CoOp", "DOR", "none", 16), "two", "base", "ece").mean
    assert data["values"][1][0][row][1] == round(100 * ece, 4)


def test_diagrams_hold_the_bins_of_the_predictions(tmp_path):
    results = read_results(write_results(tmp_path, SMALL))
    grid = make_grids(results)[0]
    data = diagrams_of(results, grid)
    found = results.cells[7]
    cell, predictions = found["cell"], results.predictions(found["key"])
    [row] = [
        row
        for row in data["cells"][cell["dataset"]][cell["classes"]]
        if grid.models[row[0]] == Model.of(cell) and row[1] == cell["seed"]
    ]
    bins = calibration_bins(predictions.y_true, predictions.y_prob.astype(float), labels=range(5), n_bins=15)
    assert row[2] == round(100 * bins.error, 4) and data["n_bins"] == 15
    flat = row[3]
    assert flat[0::4] == [index for index in range(15) if bins.count[index]]
    assert flat[1::4] == [count for count in bins.count if count] and sum(flat[1::4]) == 60
    for index, confidence, accuracy in zip(flat[0::4], flat[2::4], flat[3::4], strict=True):
        assert abs(confidence / 10_000 - bins.confidence[index]) <= 5.1e-5
        assert abs(accuracy / 10_000 - bins.accuracy[index]) <= 5.1e-5


def test_diagrams_are_left_out_without_predictions(tmp_path):
    write_results(tmp_path, SMALL)
    for path in (tmp_path / "cells").glob("*.npz"):
        path.unlink()
    results = read_results(tmp_path)
    assert diagrams_of(results, make_grids(results)[0])["cells"] == {}


@pytest.mark.slow
def test_large_results_take_seconds_and_the_page_is_small(tmp_path):
    names = [f"data set {i}" for i in range(11)]
    models = [("zero-shot", "none"), *((f"method {i}", term) for i in range(5) for term in ("none", "DOR"))]
    cells = base_to_new_cells(names, models, ["none", "temperature"])
    folder = write_results(tmp_path, cells, n_test=300, n_classes=10)
    start = time.perf_counter()
    path = write_report(folder) / "report.html"
    assert len(cells) > 1200 and time.perf_counter() - start < 60
    assert path.stat().st_size < 3e6


# The page in a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if os.name != "posix":
        pytest.skip("the browser is controlled through pipes of POSIX systems")
    from browser import find_browser, open_browser

    program = find_browser()
    if program is None:
        pytest.skip("requires Chromium, in Debian: apt install chromium")
    with open_browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


def column(browser, number, table="#base-to-new_summary"):
    return browser.run(
        f"[...document.querySelectorAll('{table} tbody tr')].filter(row => row.offsetParent)"
        f".map(row => row.cells[{number}].textContent.trim())"
    )


def direction(browser, number):
    header = HEADER.format(number + 1)
    return browser.run(f"document.querySelector('{header}').parentElement.getAttribute('aria-sort')")


def test_clicks_sort_and_the_third_restores(browser, tmp_path):
    accuracies = {"zero-shot": 0.7, "CoOp": 0.093}
    path = page(
        tmp_path,
        metrics=lambda cell: {"accuracy": accuracies[cell["method"]] + 0.1 * (cell["calibrator"] != "none")},
        missing=lambda cell: cell["protocol"] == "base-to-new" and cell["regularizer"] == "DOR",
    )
    browser.open(path)
    original = column(browser, 1)
    assert len(original) == 6 and direction(browser, 1) == "none"
    browser.click(HEADER.format(2))
    assert [text[:5] for text in column(browser, 1)[:4]] == ["9.30 ", "19.30", "70.00", "80.00"]
    assert direction(browser, 1) == "ascending"
    browser.click(HEADER.format(2))
    assert [text[:5] for text in column(browser, 1)[:4]] == ["80.00", "70.00", "19.30", "9.30 "]
    assert direction(browser, 1) == "descending"
    # Missing numbers are last in both directions.
    assert all("0 of 2 data sets" in text for text in column(browser, 1)[4:])
    browser.click(HEADER.format(1))
    assert column(browser, 0)[0] == "CoOp" and direction(browser, 1) == "none"
    browser.click(HEADER.format(2))
    browser.click(HEADER.format(2))
    browser.click(HEADER.format(2))
    assert column(browser, 1) == original
    assert browser.problems() == []


def test_headers_work_with_the_keyboard(browser, tmp_path):
    browser.open(page(tmp_path))
    browser.run(f"document.querySelector('{HEADER.format(1)}').focus()")
    browser.press(*TAB)
    browser.press(*ENTER)
    assert direction(browser, 1) == "ascending"
    numbers = [float(text.split()[0]) for text in column(browser, 1)]
    assert numbers == sorted(numbers)


def test_filters_hide_rows_columns_and_sections(browser, tmp_path):
    browser.open(page(tmp_path))
    everything = browser.run("document.getElementById('shown').textContent")
    browser.click("input[name=text]")
    browser.type("dor temp")
    assert column(browser, 0) == ["CoOp + DOR + temperature"]
    browser.click("button[type=reset]")
    browser.run("new Promise(resolve => setTimeout(resolve, 50))")
    assert browser.run("document.getElementById('shown').textContent") == everything
    browser.choose("#filters [name=method]", "zero-shot")
    assert column(browser, 0) == ["zero-shot", "zero-shot + temperature"]
    browser.choose("#filters [name=protocol]", "cross-dataset")
    assert column(browser, 0) == []
    assert column(browser, 0, "#cross-dataset_summary") == ["zero-shot"]
    browser.choose("#filters [name=dataset]", "dtd")
    shown = browser.run(
        "[...document.querySelectorAll('#cross-dataset .heat-map thead th')]"
        ".filter(e => e.offsetParent).map(e => e.textContent)"
    )
    assert shown == ["model", "dtd", "average"]
    assert browser.problems() == []


def test_heat_map_shows_the_chosen_metric(browser, tmp_path):
    path = page(tmp_path, missing=lambda cell: cell["seed"] == 2 and cell["regularizer"] == "DOR")
    browser.open(path)
    grid = make_grids(read_results(tmp_path))[0]
    label = browser.run("document.querySelector('.heat-map [name=metric]').options[4].textContent")
    assert label == "log loss"
    browser.choose("#base-to-new .heat-map [name=metric]", "4")
    browser.choose("#base-to-new .heat-map [name=part]", "1")
    found = column(browser, 2, "#base-to-new .heat-map table")
    model = Model("CoOp", "none", "none", 16)
    row = grid.models.index(model)
    assert found[row] == f"{grid.over_seeds(model, 'two', 'new', 'log_loss').mean:.4f}"
    assert found[-1] == "\u20132 of 3 seeds"
    best = browser.run(
        "[...document.querySelectorAll('#base-to-new .heat-map td.best')].map(e => Number(e.dataset.value))"
    )
    means = [grid.over_seeds(model, "one", "new", "log_loss").mean for model in grid.models[:4]]
    assert best and min(abs(one - min(means)) for one in best) < 1e-6
    assert browser.problems() == []


def test_diagrams_are_drawn_when_they_are_opened(browser, tmp_path):
    browser.open(page(tmp_path, missing=lambda cell: cell["seed"] == 2 and cell["regularizer"] == "DOR"))
    figures = "document.querySelectorAll('#base-to-new .diagrams figure')"
    assert browser.run(f"{figures}.length") == 0
    browser.click("#base-to-new summary")
    browser.run("new Promise(resolve => setTimeout(resolve, 200))")
    assert browser.run(f"{figures}.length") == 6
    browser.choose("#base-to-new .reliability [name=dataset]", "two")
    browser.choose("#base-to-new .reliability [name=part]", "new")
    captions = browser.run(f"[...{figures}].map(e => e.querySelector('figcaption').textContent)")
    grid = make_grids(read_results(tmp_path))[0]
    coop = Model("CoOp", "none", "none", 16)
    ece, accuracy = (100 * grid.over_seeds(coop, "two", "new", name).mean for name in ("ece", "accuracy"))
    expected = f"ECE {ece:.2f}, accuracy {accuracy:.2f}, 180 images, 3 seeds"
    assert captions[grid.models.index(coop)] == f"CoOp{expected}"
    # No mean over two of three seeds.
    assert captions[-1] == "CoOp + DOR + temperatureECE \u2013 (2 of 3 seeds), 120 images"
    browser.choose("#base-to-new .reliability [name=seed]", "1")
    caption = browser.run(f"{figures}[5].querySelector('figcaption').textContent")
    dor = Model("CoOp", "DOR", "temperature", 16)
    assert f"ECE {100 * grid.by_seed(dor, 'two', 'new', 'ece')[1]:.2f}" in caption
    described = browser.run(f"{figures}[5].querySelector('svg').getAttribute('aria-label')")
    assert re.search(r"confidence \d+ %, accuracy \d+ %, \d+ images", described)
    assert browser.problems() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1300])
def test_page_fits_its_window(browser, tmp_path, width, dark):
    browser.open(page(tmp_path, [*SMALL, *few_shot_cells()]), width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert contrast_of_the_worst_text(browser) >= 4.5


def contrast_of_the_worst_text(browser):
    """Return the lowest contrast between text and its background, as defined by WCAG."""
    return browser.run(
        """(() => {
        const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const rgb = (color) => {
          canvas.clearRect(0, 0, 1, 1);
          canvas.fillStyle = color;
          canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data];
        };
        const light = (color) => {
          const [r, g, b] = rgb(color).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (element) => {
          for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (rgb(color)[3] === 255) return color;
          }
          return "white";
        };
        let worst = 21;
        for (const element of document.querySelectorAll("th,td,small,p,a,label,button,h2,h3")) {
          if (!element.offsetParent || !element.textContent.trim()) continue;
          const pair = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b);
          worst = Math.min(worst, (pair[1] + 0.05) / (pair[0] + 0.05));
        }
        return worst;
        })()"""
    )


def test_nasty_names_are_text_in_the_browser(browser, tmp_path):
    cells = base_to_new_cells([NASTY], [("zero-shot", "none"), (NASTY, "none")])
    browser.open(page(tmp_path, cells, name=NASTY))
    assert browser.run("document.title") == NASTY
    assert browser.run("document.querySelector('.heat-map th:nth-child(2)').textContent") == NASTY
    assert column(browser, 0) == ["zero-shot", NASTY]
    browser.choose("#filters [name=method]", NASTY)
    assert column(browser, 0) == [NASTY]
    assert browser.run("document.querySelectorAll('b').length") == 0 and browser.problems() == []


def test_printed_page_has_all_diagrams_and_no_filters(browser, tmp_path):
    browser.open(page(tmp_path))
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert browser.run("document.querySelectorAll('.diagrams figure').length") == 9
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run("getComputedStyle(document.getElementById('filters')).display") == "none"


def test_protocol_without_finished_cells_has_no_heat_map(browser, tmp_path):
    browser.open(page(tmp_path, missing=lambda cell: cell["protocol"] == "cross-dataset"))
    shown = "[...document.querySelectorAll('#{} .heat-map, #{} .reliability')].map(e => !e.hidden)"
    assert browser.run(shown.format("base-to-new", "base-to-new")) == [True, True]
    assert browser.run(shown.format("cross-dataset", "cross-dataset")) == [False, False]
    assert "0 of 2 data sets" in column(browser, 2, "#cross-dataset_summary")[0]
    assert browser.problems() == []
