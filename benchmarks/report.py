"""How large a report page gets, and how fast it opens: `python benchmarks/report.py --images 1000 --methods 10`.

The results are made up, with the sizes and columns of real ones; a headless Chromium opens the page from disk. Times
are from the navigation to the event `load`, and until the gallery shows its first maps.
"""

import argparse
import base64
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from explainer.report.page import write_page
from explainer.report.tables import Row, write_csv, write_table

MEASURES = {"segmentation": ("acc", "iou", "sal", "mae"), "insertion_deletion": ("insertion", "deletion", "over_all")}
CURVE_POINTS = 101
NOTHING_COMMON = {"classifier": None}


@dataclass(frozen=True)
class Names:
    """What the made-up results are about.

    Args:
        images: ids.
        methods: rows of the tables.
        classes: of which each image has two.
    """

    images: Sequence[str]
    methods: Sequence[str]
    classes: Sequence[str]

    def of_image(self, place: int) -> list[str]:
        """The classes of an image."""
        return [self.classes[(place + step) % len(self.classes)] for step in range(2)]


def make_results(folder: Path, names: Names, seed: int = 0, side: int = 160) -> Path:
    """An evaluation folder as evaluate.py writes it; returns it.

    Args:
        folder: that is made.
        names: of images, methods and classes.
        seed: of the numbers and pictures.
        side: of a picture, in pixels.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for table, measures in MEASURES.items():
        _write_scores(folder, table, measures, names, random)
    _write_curves(folder, names, random)
    _write_pictures(folder, names, random, side)
    (folder / "environment.txt").write_text("python: 3\ncommand: evaluate.py\nprocessor: none (0 cores)\n")
    return folder


def _write_scores(folder: Path, table: str, measures: Sequence[str], names: Names, random: np.random.Generator) -> None:
    values = random.random((len(names.methods), len(names.images), len(measures)))
    values += np.linspace(0, 0.5, len(names.methods))[:, None, None]
    rows = [
        NOTHING_COMMON | {"method": method, "image": image, "class": None} | dict(zip(measures, scores, strict=True))
        for method, of_method in zip(names.methods, values.tolist(), strict=True)
        for image, scores in zip(names.images, of_method, strict=True)
    ]
    write_csv(rows, folder / f"{table}_per_image")
    means = values.mean(axis=1) * 100
    counts = {"images": len(names.images), "failed": 0}
    write_table(
        [
            {"method": method} | _with_bounds(measures, mean) | counts
            for method, mean in zip(names.methods, means.tolist(), strict=True)
        ],
        folder / table,
    )
    if differences := _differences(names.methods, measures, means, len(names.images)):
        write_table(differences, folder / f"{table}_differences")
    facts = {"data": "Made up", "split": "test", "images": len(names.images), "explanandum": "none"}
    command = {"command": f"python evaluate.py --tables {table}", "options": {"step": 0.01}}
    (folder / f"{table}.json").write_text(json.dumps(facts | command))


def _with_bounds(measures: Sequence[str], values: Sequence[float]) -> Row:
    return {
        f"{name}{end}": value + shift
        for name, value in zip(measures, values, strict=True)
        for end, shift in (("", 0.0), ("_low", -2.0), ("_high", 2.0))
    }


def _differences(methods: Sequence[str], measures: Sequence[str], means: np.ndarray, images: int) -> list[Row]:
    return [
        {"method": method, "other": other, "measure": measure}
        | _with_bounds(["difference"], [float(means[place, column] - means[later, column])])
        | {"images": images}
        for place, method in enumerate(methods)
        for later, other in enumerate(methods)
        if later > place
        for column, measure in enumerate(measures)
    ]


def _write_curves(folder: Path, names: Names, random: np.random.Generator) -> None:
    rows = []
    for method in names.methods:
        power = 0.3 + random.random()
        for fraction in np.linspace(0, 1, CURVE_POINTS).tolist():
            curve = _with_bounds(["insertion", "deletion"], [fraction**power, (1 - fraction) ** (1 / power)])
            rows.append({"method": method, "fraction": fraction, **{name: value for name, value in curve.items()}})
    for row in rows:
        for name in ("insertion", "deletion"):
            row[f"{name}_low"], row[f"{name}_high"] = max(row[name] - 0.05, 0), min(row[name] + 0.05, 1)
    write_csv(rows, folder / "insertion_deletion_curves")


def _write_pictures(folder: Path, names: Names, random: np.random.Generator, side: int) -> None:
    """The pictures of a hundred images, over and over: their bytes count, not their looks."""
    photographs = [_picture(_clouds(random, side, 3)) for _ in range(min(len(names.images), 100))]
    maps = [_picture(_clouds(random, side, 1)) for _ in range(100)]
    facts = ("class", "present", "probability")
    rows: list[Row] = []
    for method in ("photograph", *names.methods):
        for place, image in enumerate(names.images):
            if method == "photograph":
                tile = photographs[place % len(photographs)]
                rows.append({"method": method, "image": image, **dict.fromkeys(facts), "tile": tile})
                continue
            for label in names.of_image(place):
                values = dict(zip(facts, (label, 1, 0.9), strict=True))
                rows.append({"method": method, "image": image, **values, "tile": maps[len(rows) % len(maps)]})
    write_csv(rows, folder / "gallery_tiles")
    write_csv(_top_rows(names, photographs, maps), folder / "top_classes_tiles")


def _top_rows(names: Names, photographs: Sequence[str], maps: Sequence[str]) -> list[Row]:
    """Of the first method the largest masks, for eight images."""
    rows: list[Row] = []
    for place, image in enumerate(names.images[:8]):
        labels = "; ".join(names.of_image(place))
        none = dict.fromkeys(("present", "cls", "ama"))
        shared = {"image": image, "rank": 0, "class": labels}
        rows.append({"method": "photograph", **shared, **none, "tile": photographs[place % len(photographs)]})
        rows.append({"method": names.methods[0], **shared, **none, "ama": 30.5, "tile": maps[place]})
        for rank, label in enumerate(names.classes[:5], start=1):
            facts = {"present": int(label in names.of_image(place)), "cls": 91.2345 / rank, "ama": 20.1234 / rank}
            row = {"method": names.methods[0], "image": image, "rank": rank, "class": label, **facts}
            rows.append(row | {"tile": maps[(place + rank) % len(maps)]})
    return rows


def _clouds(random: np.random.Generator, side: int, channels: int) -> np.ndarray:
    """Smooth noise [side,side,channels], as large in bytes as a photograph or a map."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((side, side))
    pixels = np.asarray(coarse, np.float64) + random.normal(0, 6 if channels == 3 else 1, (side, side, 3))
    return pixels.clip(0, 255).astype(np.uint8)[..., :channels].squeeze()


def _picture(pixels: np.ndarray) -> str:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "WebP", quality=80)
    return base64.b64encode(written.getvalue()).decode()


def opened(page: Path) -> dict[str, float]:
    """Seconds until a headless Chromium has loaded the page, and until the gallery shows maps."""
    from browser import launched  # lies beside this file, whose folder is the first that Python looks in

    with launched() as browser:
        tab = browser.new_page()
        tab.goto("about:blank")
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="load")
        loaded = time.perf_counter() - start
        tab.wait_for_selector("#gallery-tiles .heat")
        return {"load_s": loaded, "gallery_s": time.perf_counter() - start}


def main() -> None:
    """Print size and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--methods", type=int, default=10)
    parser.add_argument("--side", type=int, default=160, help="Of a picture, in pixels.")
    parser.add_argument("--keep", type=Path, help="Folder for the results; a temporary one if not given.")
    given = parser.parse_args()
    names = Names(
        [f"{place:06}.jpg" for place in range(given.images)],
        [f"method_{place}" for place in range(given.methods)],
        [f"class {place}" for place in range(20)],
    )
    with TemporaryDirectory() as temporary:
        folder = make_results((given.keep or Path(temporary)) / "results", names, side=given.side)
        start = time.perf_counter()
        page = write_page([folder])
        written = time.perf_counter() - start
        beside = sum(file.stat().st_size for file in page.parent.rglob("*.*")) - page.stat().st_size
        sizes = {"page_MB": page.stat().st_size / 1e6, "beside_MB": beside / 1e6, "write_s": written}
        figures = sizes | opened(page)
        print(f"{given.images} images x {given.methods} methods: ", end="")
        print(", ".join(f"{name} {value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
