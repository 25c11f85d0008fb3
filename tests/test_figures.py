"""Figures for papers: they show the numbers and maps of the result files, fit their pages, and say what they lack."""

import re

import numpy as np
import pytest
import toy_results as toy
from PIL import Image
from test_plots import assert_apart, boxes

from explainer.report import figures
from explainer.report.evaluation import write_files
from explainer.report.examples import plot_examples
from explainer.report.figures.__main__ import main
from explainer.report.figures.maps import SUPERPIXELS
from explainer.report.figures.sheet import TALLEST, styled, text_width
from explainer.report.gallery import Column, draw_truth, overlay, to_tile
from explainer.report.names import NAMES, method_names

TABLES = {
    "methods": "examples", "backbones": "examples", "superpixels": "examples", "top_classes": "top_classes",
    "curves": "insertion_deletion", "curve_strip": "curve_examples", "ablation": "ablation",
    "sanity_strip": "sanity_examples",
}  # fmt: skip
"""That each figure is drawn from."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Another classifier's evaluation, of a method more; it was asked for another class of image b."""
    rows = [row | ({"class": "hen"} if row["image"] == "b" else {}) for row in toy.examples(("grad_cam", "rise"))]
    return toy.write_results(tmp_path_factory.mktemp("beside"), "resnet50", examples_tiles=rows)


@pytest.fixture(scope="module")
def superpixels(tmp_path_factory):
    return toy.write_results(tmp_path_factory.mktemp("pami"), examples_tiles=toy.examples(tuple(SUPERPIXELS)))


@pytest.fixture(scope="module")
def drawn(folder, beside, superpixels):
    """All figures, by their names."""
    choice = figures.Choice(beside=[beside])
    return {
        name: draw(superpixels if name == "superpixels" else folder, choice) for name, draw in figures.FIGURES.items()
    }


def written(figure):
    """All texts that are no number at an axis."""
    return [text.get_text() for text in figure.texts]


def over(image, *key):
    return overlay(toy.shown(*key), toy.photograph(image))


def assert_pictures(figure, expected):
    found = toy.pictures_of(figure)
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert (one is None) == (other is None), number
        assert one is None or (one == other).all(), number


# What is drawn is what the files hold.


def test_the_methods_strip_has_each_map_over_its_photograph_and_a_cross_where_there_is_none(drawn):
    expected = []
    for image in toy.IMAGES:
        photograph = toy.photograph(image)
        truth = draw_truth(Column(photograph, "", toy.shown("ground_truth", image)))
        grad_cam = over(image, "grad_cam", image) if image == "a" else None
        expected += [to_tile(photograph), truth, over(image, "explainer", image), grad_cam]
    assert_pictures(drawn["methods"], expected)
    assert written(drawn["methods"])[:4] == ["photograph", "ground truth", "Explainer", "Grad-CAM"]
    assert {"cat 0.91", "dog 0.42"} <= {*written(drawn["methods"])}


def test_of_many_methods_each_has_a_row(tmp_path):
    methods = tuple(list(NAMES)[:12])
    toy.write_results(tmp_path, examples_tiles=toy.examples(methods))
    figure = figures.methods_strip(tmp_path)
    assert written(figure)[:2] == ["cat 0.91", "dog 0.42"]
    found = toy.pictures_of(figure)
    assert len(found) == 2 * 14
    assert (found[4] == over("a", methods[0], "a")).all()


def test_methods_and_images_are_those_chosen_in_that_order(folder):
    choice = figures.Choice(methods=["grad_cam", "explainer"], images=["b"])
    figure = figures.methods_strip(folder, choice)
    assert written(figure)[2:4] == ["Grad-CAM", "Explainer"]
    assert [one is None for one in toy.pictures_of(figure)] == [False, False, True, False]
    assert len(toy.pictures_of(figures.methods_strip(folder, figures.Choice(images=1)))) == 4
    for wrong, message in (
        ({"methods": ["rise"]}, "no method 'rise'.*explainer, grad_cam"),
        ({"images": ["c"]}, "'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.methods_strip(folder, figures.Choice(**wrong))


def test_below_each_of_the_top_classes_stand_its_name_probability_and_mean_mask(drawn):
    texts = written(drawn["top_classes"])
    assert texts[:5] == ["photograph", "merged mask", "1", "2", "3"]
    rows = [row for row in toy.top_classes() if row["method"] == "explainer"]
    expected = []
    for row in rows:
        facts = [f"{row['class']}{' **' if row['present'] else ''}", row["cls"], row["ama"]]
        expected += ["TAC", "CLS", "AMA"] if row["rank"] == 0 else [facts[0], *(f"{fact:.2f}" for fact in facts[1:])]
    assert texts[5:-1] == expected
    pictures = []
    for image in toy.IMAGES:
        pictures += [to_tile(toy.photograph(image)), *(over(image, "top", image, rank) for rank in range(4))]
    assert_pictures(drawn["top_classes"], pictures)


def test_mean_curves_go_through_the_numbers(drawn):
    for axes, name in zip(drawn["curves"].axes, ("insertion", "deletion"), strict=True):
        assert axes.get_title() == name
        for method, line, band in zip(toy.METHODS, axes.lines, axes.collections, strict=True):
            rows = toy.curves(method)
            assert line.get_xdata() == pytest.approx([row["fraction"] for row in rows])
            assert line.get_ydata() == pytest.approx([row[name] for row in rows], rel=1e-5)
            low, high = band.get_paths()[0].get_extents().intervaly
            assert [low, high] == pytest.approx([min(line.get_ydata()) - 0.02, max(line.get_ydata()) + 0.02], abs=1e-5)
    (legend,) = drawn["curves"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["Explainer", "Grad-CAM"]


def test_the_curve_strip_has_the_curves_and_areas_of_each_image(drawn):
    figure = drawn["curve_strip"]
    panels = [axes for axes in figure.axes if axes.get_xlim() == (0, 1) and len(axes.lines) == 2 and not is_tile(axes)]
    wanted = [(image, name) for image in toy.IMAGES for name in ("insertion", "deletion")]
    for axes, (image, name) in zip(panels, wanted, strict=True):
        for method, line in zip(toy.METHODS, axes.lines, strict=True):
            assert list(line.get_ydata()) == pytest.approx([row[name] for row in toy.curves(method, image)], rel=1e-5)
    texts = written(figure)
    for row in toy.curve_examples()["curve_examples"]:
        assert {f"ins. {row['insertion']:.1f}", f"del. {row['deletion']:.1f}"} <= {*texts}
    expected = [
        one
        for image in toy.IMAGES
        for one in (to_tile(toy.photograph(image)), *(over(image, method, image) for method in toy.METHODS))
    ]
    assert_pictures(figure, expected)


def is_tile(axes):
    return toy.is_cross(axes) and not axes.get_xticklabels()


def test_the_ablation_has_a_panel_for_each_option_and_measure_with_the_intervals(drawn):
    panels = drawn["ablation"].axes
    wanted = [(option, measure) for option in ("groups", "sigma") for measure in ("insertion", "deletion")]
    for axes, (option, measure) in zip(panels, wanted, strict=True):
        rows = [row for row in toy.ablation() if row["option"] == option]
        values, *bars = axes.lines
        assert list(values.get_ydata()) == pytest.approx([row[measure] for row in rows])
        for row, bar in zip(rows, bars, strict=True):
            assert list(bar.get_ydata()) == pytest.approx([row[f"{measure}_low"], row[f"{measure}_high"]])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "16", "32"]
        assert axes.get_xlabel() == f"Group-CAM: {option}" and axes.get_ylabel().startswith(measure)


def test_the_sanity_strip_goes_from_the_output_to_the_input_with_its_correlations(drawn):
    figure = drawn["sanity_strip"]
    texts = written(figure)
    assert texts[:5] == ["photograph", "none random", *toy.LAYERS]
    numbers = [text for text in texts if re.fullmatch(r"[\d.]+|–", text)]
    assert numbers == ["0.70", "–", "0.10", "0.70", "0.40", "0.10"]
    expected = [to_tile(toy.photograph("a"))]
    expected += [over("a", mode, "a", depth) for mode in ("cascading", "independent") for depth in range(4)]
    expected[3] = None
    assert_pictures(figure, expected)


def test_of_many_layers_some_are_shown_the_first_and_the_last_among_them(tmp_path):
    layers = [f"layer{number}" for number in range(1, 31)]
    toy.write_results(tmp_path, sanity_examples_tiles=toy.sanity_examples(layers))
    columns = written(figures.sanity_strip(tmp_path))[2:10]
    assert columns[0] == "layer1" and columns[-1] == "layer30"
    numbers = [int(name.removeprefix("layer")) for name in columns]
    assert {*np.diff(numbers)} <= {4, 5}


def test_backbones_compare_the_images_that_all_were_asked_the_same_of(drawn):
    figure = drawn["backbones"]
    first = [to_tile(toy.photograph("a")), over("a", "explainer", "a"), over("a", "grad_cam", "a"), None]
    assert_pictures(figure, [*first, None, over("a", "grad_cam", "a"), over("a", "rise", "a")])
    assert {"vgg16\ncat 0.91", "resnet50\ncat 0.91"} <= {*written(figure)}


def test_backbones_need_two_evaluations_with_an_image_in_common(folder, tmp_path):
    with pytest.raises(ValueError, match="evaluate another one.*--beside"):
        figures.backbone_grid(folder)
    other = [row | {"image": f"other_{row['image']}"} for row in toy.examples()]
    toy.write_results(tmp_path, examples_tiles=other)
    with pytest.raises(ValueError, match="no image in common"):
        figures.backbone_grid(folder, figures.Choice(beside=[tmp_path]))


def test_superpixels_stand_in_the_order_of_the_paper_or_the_methods_to_evaluate_are_named(drawn, folder):
    names = ["photograph", "Felzenszwalb", "SLIC", "SEEDS", "watershed", "all, first run", "all, second run"]
    assert [text.replace("\n", " ") for text in written(drawn["superpixels"])[:7]] == names
    expected = []
    for image in toy.IMAGES:
        expected += [to_tile(toy.photograph(image)), *(over(image, method, image) for method in SUPERPIXELS)]
    assert_pictures(drawn["superpixels"], expected)
    with pytest.raises(ValueError, match=r"--methods pami:segmentation=felzenszwalb,second_run=false .* pami\."):
        figures.superpixel_strip(folder)


def test_names_have_their_options_only_where_two_would_be_alike():
    assert method_names(["rise:masks=9", "grad_cam", "mine"]) == {
        "rise:masks=9": "RISE", "grad_cam": "Grad-CAM", "mine": "mine",
    }  # fmt: skip
    assert list(method_names(["pami", "pami:second_run=false,shifts=true"]).values()) == [
        "PAMI", "PAMI (second_run=false, shifts=true)",
    ]  # fmt: skip


# They fit.


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_fit_the_page_and_their_texts_stand_apart_and_inside(drawn, name):
    figure = drawn[name]
    width, height = figure.get_size_inches()
    assert 1 < width <= figures.PAGE + 1e-6 and 1 < height <= TALLEST + 1e-6
    figure.canvas.draw()
    texts = [text for text in figure.texts if text.get_text()]
    assert_apart(texts)
    page = figure.bbox.padded(1)
    labels = [label for axes in figure.axes for label in (*axes.get_xticklabels(), axes.xaxis.label, axes.yaxis.label)]
    for box in boxes([*texts, *(label for label in labels if label.get_text())]):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    for axes in figure.axes:
        assert not any(box.overlaps(axes.bbox.padded(-2)) for box in boxes(texts)), name


def test_text_is_as_large_as_in_the_paper(drawn):
    for figure in drawn.values():
        sizes = {text.get_fontsize() for text in figure.texts}
        sizes |= {label.get_fontsize() for axes in figure.axes for label in (axes.xaxis.label, *axes.get_xticklabels())}
        assert all(8 <= size <= 9 for size in sizes)


def test_on_coarse_pixels_long_names_are_as_wide_as_on_paper(tmp_path):
    write_files({"sanity_examples_tiles": toy.sanity_examples(("fc", "layer3.0.downsample.1", "conv1"))}, tmp_path)
    figure = figures.sanity_strip(tmp_path)
    figure.set_dpi(100)
    with styled():
        figure.canvas.draw()
        tops = {text.get_text(): text.get_window_extent().y1 for text in figure.texts}
        name = next(text for text in figure.texts if text.get_text() == "layer3.0.downsample.1")
        assert name.get_window_extent().height <= 100 * text_width(name.get_text()) + 2.5  # it was 5 more
    assert max(tops.values()) <= figure.bbox.y1


def test_a_column_is_narrower_than_a_page_and_too_many_tiles_are_an_error(folder):
    assert figures.methods_strip(folder, figures.Choice(width=figures.COLUMN)).get_size_inches()[0] <= figures.COLUMN
    for name in ("methods", "curve_strip"):
        with pytest.raises(ValueError, match="don't fit a page 1.5 inches wide; choose fewer"):
            figures.FIGURES[name](folder, figures.Choice(width=1.5))


def test_files_have_the_figure_s_size_and_whole_fonts_and_repeat(folder, tmp_path, drawn):
    files = figures.write_figures(folder, only=["ablation", "methods"], output=tmp_path)
    assert [file.name for file in files] == ["ablation.pdf", "ablation.png", "methods.pdf", "methods.png"]
    for name in ("ablation", "methods"):
        width, height = drawn[name].get_size_inches()
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == pytest.approx((300 * width, 300 * height), abs=1)
        content = (tmp_path / f"{name}.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", content)
        assert [float(value) for value in box.groups()] == pytest.approx([72 * width, 72 * height], abs=0.1)
        assert b"/FontFile2" in content and b"/Type3" not in content
        (again,) = figures.write_figures(folder, only=[name], output=tmp_path / "again", formats=["pdf"])
        assert again.read_bytes() == content


# They say what they lack.


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_missing_table_is_named(tmp_path, beside, name):
    with pytest.raises(ValueError, match=rf"--tables {TABLES[name]}\b"):
        figures.FIGURES[name](tmp_path, figures.Choice(beside=[beside]))


def test_what_can_be_drawn_is_drawn_and_the_rest_is_told_unless_it_was_asked_for(tmp_path, capsys):
    toy.write_results(tmp_path, ablation=[])
    files = figures.write_figures(tmp_path, formats=["png"], dpi=50)
    assert {file.stem for file in files} == {"methods", "top_classes", "curves", "curve_strip", "sanity_strip"}
    assert all(file.parent == tmp_path / "figures" and file.is_file() for file in files)
    said = capsys.readouterr().out
    assert "No figures of what was not evaluated: ablation, backbones, superpixels (" in said
    with pytest.raises(ValueError, match="has no ablation.csv"):
        figures.write_figures(tmp_path, only=["ablation"])
    with pytest.raises(ValueError, match="Unknown figure 'method'; choose some of: methods, top_classes"):
        figures.write_figures(tmp_path, only=["method"])


def test_the_command_writes_what_is_asked_for_and_a_mistake_is_one_line(folder, tmp_path, capsys):
    options = ["--only", "methods", "--images", "1", "--methods", "explainer", "--formats", "png", "--width", "3.3"]
    main([str(folder), *options, "--output", str(tmp_path)])
    assert capsys.readouterr().out.split() == [str(tmp_path / "methods.png")]
    with Image.open(tmp_path / "methods.png") as picture:
        assert picture.size[0] <= 990
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--only", "methods"])
    assert re.fullmatch(r"error: .* has no examples_tiles.csv; evaluate with --tables examples .*", str(stopped.value))


EMPTIED = {
    "examples_tiles": ("methods", "probability"),
    "top_classes_tiles": ("top_classes", "cls", "ama"),
    "curve_examples": ("curve_strip", "insertion"),
    "curve_examples_tiles": ("curve_strip", "probability"),
    "sanity_examples_tiles": ("sanity_strip", "rank_correlation"),
}
"""The figures of tables, and columns in which a cell may be empty."""


@pytest.mark.parametrize("table", EMPTIED)
def test_empty_cells_are_dashes(tmp_path, table):
    name, *columns = EMPTIED[table]
    rows = {**toy.curve_examples(), "examples_tiles": toy.examples(), "top_classes_tiles": toy.top_classes()}
    rows["sanity_examples_tiles"] = toy.sanity_examples()
    write_files(rows | {table: [row | dict.fromkeys(columns) for row in rows[table]]}, tmp_path)
    assert any("–" in text for text in written(figures.FIGURES[name](tmp_path, figures.Choice())))
    if table == "examples_tiles":
        plot_examples(tmp_path / f"{table}.csv", tmp_path / "examples.png")


def test_a_method_that_lacks_a_layer_has_a_cross_there(tmp_path):
    rows = toy.sanity_examples(methods=("grad_cam", "rise"))
    kept = [row for row in rows if (row["method"], row["mode"], row["depth"]) != ("grad_cam", "independent", 3)]
    write_files({"sanity_examples_tiles": kept}, tmp_path)
    figure = figures.sanity_strip(tmp_path)
    assert written(figure)[2:5] == list(toy.LAYERS)
    assert [place for place, one in enumerate(toy.pictures_of(figure)) if one is None] == [3, 8]


def test_one_broken_table_costs_no_other_figure(tmp_path, capsys, monkeypatch):
    write_files({**toy.curve_examples(), "ablation": toy.ablation()}, tmp_path)
    broken = {"methods": lambda *_: [][0], "curve_strip": lambda *_: None + 1}
    monkeypatch.setattr(figures, "FIGURES", {**figures.FIGURES, **broken})
    assert {file.stem for file in figures.write_figures(tmp_path, formats=["png"], dpi=50)} == {"ablation"}
    said = capsys.readouterr().out
    assert "No figure methods: IndexError" in said and "No figure curve_strip: TypeError" in said


def test_a_folder_that_is_not_there_and_one_that_holds_nothing_end_with_an_error(tmp_path):
    for folder, message in ((tmp_path / "none", "is not there"), (tmp_path, "holds nothing that a figure")):
        with pytest.raises(SystemExit) as stopped:
            main([str(folder)])
        assert message in str(stopped.value)


def test_tables_in_which_everything_failed_are_errors_that_say_so(tmp_path):
    only_photographs = [row for row in toy.sanity_examples() if row["method"] == "photograph"]
    no_masks = [row for row in toy.top_classes() if row["method"] == "photograph"]
    toy.write_results(tmp_path, sanity_examples_tiles=only_photographs, top_classes_tiles=no_masks)
    with pytest.raises(ValueError, match="every method has failed"):
        figures.sanity_strip(tmp_path)
    with pytest.raises(ValueError, match="every image has failed"):
        figures.top_classes_strip(tmp_path)
