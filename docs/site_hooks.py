"""What mkdocs can't do by itself: the site also has the pages that lie outside `docs/`, beside what they tell of.

`results/README.md` stays with its tables and `CONTRIBUTING.md` where hosts look for it, and links between them and the
pages of `docs/` lead to the right place in a clone and in the site.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("results/README.md", "benchmarks/README.md", "CONTRIBUTING.md")
"""Pages from elsewhere, which keep their paths in the site."""
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages from outside."""
    for path in OUTSIDE:
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that cross the border of `docs/` into the site's."""
    return LINK.sub(lambda found: found[1] + site_link(page.file.src_uri, found[2]) + found[3], markdown)


def site_link(page: str, target: str) -> str:
    """A link of a page, as the site has it.

    Args:
        page: path within the site.
        target: relative to the page's place in the repository.
    """
    place = page if page in OUTSIDE else f"docs/{page}"
    found = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
    if page not in OUTSIDE and found.startswith("docs/"):
        return target
    return os.path.relpath(found.removeprefix("docs/"), posixpath.dirname(page) or ".").replace(os.sep, "/")
