"""The site of the pages: built strictly, read without a network, complete."""

import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module

import pytest
from documented import ROOT

import explainer
from explainer import METHODS, losses, metrics

pytest.importorskip("mkdocs", reason='mkdocs is not installed: pip install ".[docs]"')
pytest.importorskip("mkdocstrings", reason='mkdocstrings is not installed: pip install ".[docs]"')
from mkdocstrings import Inventory  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning of mkdocs is an error, and without `--quiet`, which hides them."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Loaded(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        """Scripts, pictures, frames and what is linked to the page."""
        attributes = dict(attrs)
        self.found += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        if tag == "link":
            self.found.append(attributes["href"])


def test_no_page_fetches_anything_from_a_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not [address for address in Loaded(page).found if re.match(r"(?:\w+:)?//", address)], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text()), style.name


def test_what_a_page_fetches_is_there(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # whose addresses are those of a server's root
            continue
        for address in Loaded(page).found:
            if not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0].partition("#")[0]).exists(), (page.name, address)


@pytest.fixture(scope="module")
def documented(site):
    """The names that the API pages describe."""
    with (site / "objects.inv").open("rb") as opened:
        return set(Inventory.parse_sphinx(opened))


def home(thing):
    """explainer.metrics.curves.auc."""
    return f"{thing.__module__}.{thing.__qualname__}"


def test_the_api_has_every_name_that_users_import(documented):
    things = [getattr(explainer, name) for name in explainer.__all__ if name != "METHODS"]
    things += METHODS.values()
    things += [getattr(metrics, name) for name in metrics.__all__ if not name.isupper()]
    things += [thing for name, thing in vars(losses).items() if inspect.isfunction(thing) and name.islower()]
    data = import_module("datamodules")
    things += [thing for thing in vars(data).values() if inspect.isclass(thing) and thing.__module__.startswith("data")]
    ours = {home(thing) for thing in things if thing.__module__.split(".")[0] in ("explainer", "datamodules")}
    assert len(ours) > 80
    assert ours - documented == set()


def test_arguments_and_errors_of_docstrings_become_lists(site):
    page = (site / "api" / "metrics.html").read_text()
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"{section}:" in page


def test_the_pages_beside_the_documentation_are_part_of_the_site(site):
    for page, link in (
        ("results/index.html", "../methods.html"),
        ("reproduction.html", "results/index.html#"),
        ("code.html", "CONTRIBUTING.html"),
    ):
        assert f'href="{link}' in (site / page).read_text()


def test_the_style_names_pictures_that_pages_show():
    named = set(re.findall(r'src="([^"]+)"', (ROOT / "docs" / "site.css").read_text()))
    shown = {
        name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    }
    assert named and named <= shown
