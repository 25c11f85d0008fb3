"""One page of a finished evaluation, or of several: `report/index.html`, which opens from disk without a network.

Styles, scripts and the plotting library are part of the page, and so are the pictures of a gallery up to a limit; those
of a larger one lie in the folder `gallery` beside it.
"""

import json
import math
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.files import write_whole
from explainer.report.page_content import comparison_of, links, section_of
from explainer.report.page_data import PER_IMAGE, Result, all_stems, open_results
from explainer.report.page_gallery import (
    Picked,
    content_of,
    heat_table,
    index_of,
    read_gallery,
    remove_chunks,
    sizes_of,
    write_chunks,
)
from explainer.report.page_sections import sections_of
from explainer.report.page_tables import leaders, table_of_rows
from explainer.report.page_top_classes import read_top_classes
from explainer.report.tables import MISSING

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
EMBEDDED = 24 * 2**20
"""Bytes of pictures that are part of the page; a browser reads such a page from disk within about a second."""


def write_page(folders: Sequence[Path], output: Path | None = None, embedded: int = EMBEDDED) -> Path:
    """Write the page of one evaluation, or of several side by side; returns its file.

    Args:
        folders: that evaluate.py wrote; of several the second and later ones are compared with the one before.
        output: folder of the page; `report` within the first if not given.
        embedded: bytes of pictures that the page may hold; more go into files beside it.

    Raises:
        FileNotFoundError: If a folder is not there, or holds no table.
        ValueError: If a file is damaged.
    """
    results = open_results(folders)
    output = (results[0].folder / "report" if output is None else Path(output)).resolve()
    output.mkdir(parents=True, exist_ok=True)
    gallery = read_gallery(results)
    # Up to there only: to pack a large gallery takes seconds, and it is packed once more when it is written.
    beside = any(taken > embedded for taken in accumulate(sizes_of(gallery)))
    if beside:
        write_chunks(gallery, output)
    else:
        remove_chunks(output)
    page = output / "index.html"
    write_whole(page, render(results, output, gallery, beside=beside))
    return page


def render(results: Sequence[Result], output: Path, gallery: Sequence[Picked], *, beside: bool) -> str:
    """The page as HTML."""
    environment = make_environment()
    sections = [section_of(results, key, stems, output) for key, stems in sections_of(all_stems(results)).items()]
    best = [row for section in sections for part in section.parts for row in leaders(results, part.stem)]
    return environment.get_template("page.html.j2").render(
        leaders=table_of_rows(best, "summary") if best else None,
        title=_title(results),
        results=results,
        names=[one.name for one in results],
        sections=[section for section in sections if section.parts],
        comparisons=[comparison_of(before, after, gallery) for before, after in pairwise(results)],
        top_classes=read_top_classes(results),
        gallery=index_of(gallery, beside=beside) if gallery else None,
        picks=frozenset(picked.name for picked in gallery),
        contents=[] if beside else [content_of(picked) for picked in gallery],
        per_image={one.name: links(one, one.stems, output, PER_IMAGE) for one in results},
        heat=heat_table(),
    )


def _title(results: Sequence[Result]) -> str:
    """The classifier and the data, where all results have the same; else the results' names."""
    names = " and ".join(one.name for one in results)
    facts = [tuple(one.common_facts.get(name) for name in ("explanandum", "data", "split")) for one in results]
    if len(set(facts)) != 1 or None in facts[0]:
        return names
    classifier, data, split = facts[0]
    return f"{classifier} on {str(data).removesuffix('DataModule')} ({split})"


def make_environment() -> "Environment":
    """Templates whose every text is escaped; only files of this package are taken as they are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = lambda value: Markup(_json(value))
    environment.filters["breakable"] = lambda text: Markup("<wbr>").join(re.split(r"(?<=[,:_/])", text))
    environment.filters["slug"] = lambda text: re.sub(r"[^\w.-]+", "-", text)
    environment.filters["two"] = lambda text: f"{float(text):.2f}" if text else MISSING
    environment.globals["source"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    environment.globals["plotly"] = lambda: Markup(get_plotlyjs())
    return environment


def _json(value: Any) -> str:
    """JSON for a script element, in which no text can end the element."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
