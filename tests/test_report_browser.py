"""The report page in a real headless Chromium, opened from disk without a network."""

import re

import pytest
from toy_pages import EVIL_CLASS, EVIL_IMAGE, METHODS, NAMES
from watched import Watch, require_browser

from benchmarks.browser import launched
from benchmarks.report import Names, make_results
from explainer.report.names import method_names
from explainer.report.page import write_page
from explainer.report.page_gallery import CHUNK
from explainer.report.tables import read_table, write_csv

pytest.importorskip("playwright", reason="playwright is in the extra `test`")
WIDE = {"width": 1200, "height": 900}
NARROW = {"width": 360, "height": 740}
INFINITE = float("inf")


@pytest.fixture(scope="module")
def browser():
    with launched(require_browser()) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("made") / "results", NAMES, side=24)


@pytest.fixture(scope="module")
def page(folder):
    return write_page([folder])


@pytest.fixture(scope="module")
def watch(browser):
    context = browser.new_context(viewport=WIDE)
    yield Watch(context)
    context.close()


@pytest.fixture(scope="module")
def tab(watch, page):
    """The page, opened once: tests pick and sort in it, and rely on nothing that another one picked or sorted."""
    return watch.open(page.as_uri())


@pytest.fixture(autouse=True)
def nothing_to_complain_about(watch):
    """Nothing is complained about, and nothing asked for from elsewhere than the disk."""
    yield
    assert watch.complaints == []
    assert [url for url in watch.requests if not re.match(r"(file|data|blob):", url)] == []


def column(tab, stem, name):
    """What stands in a column, in order."""
    headings = tab.locator(f"[data-stem='{stem}'] th").all_inner_texts()
    place = next(place for place, heading in enumerate(headings) if heading.startswith(name))
    return tab.locator(f"[data-stem='{stem}'] tbody tr td:nth-child({place + 1})").all()


def test_it_opens_without_a_complaint_and_draws_its_charts(tab):
    tab.locator(".chart").first.scroll_into_view_if_needed()
    tab.wait_for_selector(".plot .main-svg")
    for chart in tab.locator("section > .charts .chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".plot .main-svg").first.wait_for()
        assert chart.locator(".plot .main-svg").count() >= 1
    assert EVIL_CLASS in tab.inner_text("#top-classes")


def test_a_click_or_a_key_on_a_heading_sorts_numbers_as_numbers(tab, folder):
    values = sorted(row["acc"] for row in read_table(folder / "segmentation.csv"))
    heading = tab.locator("[data-stem='segmentation'] th", has_text="acc")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    numbers = [float(cell.get_attribute("data-value")) for cell in column(tab, "segmentation", "acc")]
    assert numbers == values[::-1]
    heading.locator("button").focus()
    tab.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    numbers = [float(cell.get_attribute("data-value")) for cell in column(tab, "segmentation", "acc")]
    assert numbers == values
    tab.locator("[data-stem='segmentation'] th button", has_text="method").click()
    assert [cell.get_attribute("data-value") for cell in column(tab, "segmentation", "method")] == sorted(METHODS)
    assert tab.locator("[data-stem='segmentation'] [aria-sort='none']").count() > 0


def test_every_number_in_the_browser_is_one_of_the_csv_files(tab, folder):
    for file in folder.glob("*.csv"):
        if file.stem.endswith(("_per_image", "_tiles", "_curves")):
            continue
        found = tab.eval_on_selector_all(
            f"[data-stem='{file.stem}'] td", "cells => cells.map(cell => cell.dataset.value ?? null)"
        )
        rows = read_table(file)
        names = [name for name in rows[0] if not name.endswith(("_low", "_high"))]
        assert sorted(str(row[name]) for row in rows for name in names) == sorted(found)


def test_infinite_numbers_are_sorted_too(watch, tmp_path):
    write_csv(
        [{"method": str(value), "sal": value} for value in (1.0, float("-inf"), float("inf"), 2.0)], tmp_path / "a"
    )
    tab = watch.open(write_page([tmp_path]).as_uri())
    tab.locator("th button", has_text="sal").click()
    assert [float(cell.get_attribute("data-value")) for cell in column(tab, "a", "sal")] == [INFINITE, 2, 1, -INFINITE]


def test_on_paper_all_charts_are_drawn_and_no_table_is_cut(tab, tmp_path):
    tab.pdf(path=tmp_path / "page.pdf", format="A4")
    assert tab.locator(".chart").count() > 3
    for chart in tab.locator(".chart").all():
        folded = chart.evaluate("chart => chart.closest('details:not([open])') !== null")
        assert folded or chart.locator(".main-svg").count() > 0
    assert tab.locator("section img[loading=lazy]").count() == 0
    tab.set_viewport_size({"width": 718, "height": 900})  # A4 within its margins
    tab.emulate_media(media="print")
    cut = "tables.filter(one => getComputedStyle(one).overflow !== 'visible' || one.scrollWidth > innerWidth).length"
    assert tab.eval_on_selector_all(".scroll", f"tables => {cut}") == 0
    tab.emulate_media(media="screen")
    tab.set_viewport_size(WIDE)


def test_picking_an_image_and_a_class_shows_all_methods_and_their_scores(tab, folder):
    tab.select_option("#gallery-image", label=EVIL_IMAGE)
    names = tab.locator("#gallery-tiles figcaption strong").all_inner_texts()
    assert names == ["photograph", *method_names(METHODS).values()]
    assert tab.locator("#gallery-tiles .heat").count() == len(METHODS)
    before = tab.locator("#gallery-tiles .heat").first.get_attribute("src")
    tab.locator("#gallery-classes label").nth(1).click()
    assert tab.locator("#gallery-tiles .heat").first.get_attribute("src") != before
    assert EVIL_IMAGE in tab.inner_text("#gallery-state")
    shown = tab.eval_on_selector_all(".scores dd", "cells => cells.map(cell => Number(cell.dataset.value))")
    rows = [row for row in read_table(folder / "segmentation_per_image.csv") if row["image"] == EVIL_IMAGE]
    assert {row["iou"] for row in rows} <= set(shown)


def test_only_images_with_a_class_can_be_listed(tab):
    tab.select_option("#gallery-filter", value=EVIL_CLASS)
    expected = [name for place, name in enumerate(NAMES.images) if EVIL_CLASS in NAMES.of_image(place)]
    assert tab.locator("#gallery-image option").all_inner_texts() == [" ".join(name.split()) for name in expected]
    assert tab.locator("#gallery-classes input:checked").count() == 1
    assert EVIL_CLASS in tab.inner_text("#gallery-state")
    tab.select_option("#gallery-filter", value="")
    assert tab.locator("#gallery-image option").count() == len(NAMES.images)


def test_the_slider_changes_the_opacity_of_the_maps(tab):
    opacity = "map => getComputedStyle(map).opacity"
    assert float(tab.eval_on_selector(".heat", opacity)) == float(tab.input_value("#gallery-strength")) / 100
    tab.fill("#gallery-strength", "25")
    assert tab.eval_on_selector(".heat", opacity) == "0.25"
    tab.focus("#gallery-strength")
    tab.keyboard.press("ArrowRight")
    assert tab.eval_on_selector(".heat", opacity) == "0.26"
    assert tab.inner_text("#gallery-strength-value") == "26 %"


def test_the_gallery_works_by_keyboard_and_shows_where_the_focus_is(tab):
    tab.select_option("#gallery-image", index=0)
    tab.focus("#gallery-next")
    tab.keyboard.press("Enter")
    assert tab.input_value("#gallery-image") == "1"
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("ArrowDown")
    assert tab.input_value("#gallery-image") == "2"
    tab.focus("#gallery-strip button >> nth=4")
    tab.keyboard.press("Space")
    assert tab.locator("#gallery-strip [aria-pressed='true']").get_attribute("data-image") == "4"
    tab.keyboard.press("Tab")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.focus("#gallery-classes input:checked")
    before = tab.inner_text("#gallery-state")
    tab.keyboard.press("ArrowDown")
    assert tab.inner_text("#gallery-state") != before


def test_what_can_be_clicked_has_a_name_and_every_picture_a_text(tab):
    nameless = """elements => elements.filter(e => e.offsetParent !== null && !(
        e.ariaLabel || e.textContent || e.title || [...(e.labels || [])].map(label => label.innerText).join("") ||
        e.querySelector("img")?.alt)).map(e => e.outerHTML)"""
    assert tab.locator("main button:visible").count() > len(NAMES.images)
    assert tab.eval_on_selector_all("button, select, input, a", nameless) == []
    assert tab.locator("img:not([alt])").count() == 0


@pytest.mark.parametrize("size", [NARROW, {"width": 768, "height": 900}])
def test_a_narrow_window_needs_no_scrolling_to_the_side(tab, size):
    tab.set_viewport_size(size)
    for chart in tab.locator("section > .charts .chart").all()[:3]:
        chart.scroll_into_view_if_needed()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for place in ("#gallery-strength", "#gallery-image"):
        box = tab.locator(place).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
    tab.set_viewport_size(WIDE)


def test_a_large_gallery_comes_from_the_files_beside_the_page(watch, tmp_path):
    names = Names([f"{place}.jpg" for place in range(60)], METHODS, NAMES.classes)
    file = write_page([make_results(tmp_path / "results", names, side=16)], embedded=0)
    assert all(CHUNK.fullmatch(beside.name) for beside in (file.parent / "gallery").iterdir())
    tab = watch.open(file.as_uri())
    tab.wait_for_selector("#gallery-tiles .heat")
    tab.select_option("#gallery-image", label="40.jpg")
    strip, picked = (tab.locator(f"#gallery-strip{part}").bounding_box() for part in ("", " [aria-pressed='true']"))
    assert strip["x"] <= picked["x"] <= strip["x"] + strip["width"] - picked["width"]
    assert tab.evaluate("scrollY") == 0, "Only the strip is scrolled."
    tab.click("#gallery-later")
    tab.locator("#gallery-strip button").last.click()
    tab.wait_for_function("document.getElementById('gallery-state').textContent.startsWith('59.jpg')")
    assert tab.locator("#gallery-tiles .heat").count() == len(METHODS)
    tab.wait_for_function("document.querySelector('#gallery-strip button:last-child img').naturalWidth > 0")


def test_a_row_of_the_comparison_leads_to_its_image_in_the_gallery(watch, folder, tmp_path):
    other = make_results(tmp_path / "other", NAMES, seed=1, side=24)
    tab = watch.open(write_page([folder, other], tmp_path / "page").as_uri())
    tab.locator("details:has([data-stem='most_different']) > summary").click()
    link = tab.locator(".picks").nth(3)
    name = link.inner_text()
    link.click()
    assert tab.locator("#gallery-image option:checked").inner_text() == name
    assert tab.locator("#gallery-tiles .heat").count() == 2 * len(METHODS)
