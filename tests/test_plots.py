"""Every number of the CSV is in the picture, at its place, and nothing hides anything else."""

import numpy as np
import pytest
from PIL import Image

from explainer.report import plots
from explainer.report.plots import plot_ablation, plot_curves, plot_masking, plot_sanity
from explainer.report.tables import write_table

CLASSES = ["cat", "dog", "pottedplant"]
LONG_LAYERS = [f"features.denseblock4.denselayer{number}.conv2" for number in range(16, 0, -1)]
MANY = [*(f"method_{number}" for number in range(19)), "aop:optimiser=(i_gos:iterations=6,steps=8),seed=0,groups=32"]


def bounded(name, value, width=0.02):
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def curves(methods=("explainer", "grad_cam"), power=2.0):
    return [
        {
            "method": method,
            "fraction": fraction,
            **bounded("insertion", 0.9 * fraction ** (1 + index / 9)),
            **bounded("deletion", 0.9 * (1 - fraction) ** (power + index)),
        }
        for index, method in enumerate(methods)
        for fraction in (0.0, 0.25, 0.5, 1.0)
    ]


def sanity(methods=("explainer", "grad_cam"), layers=("fc", "conv2", "conv1"), last=0.1):
    values = np.linspace(1, last, 1 + len(layers))
    return [
        {
            "method": method,
            "mode": mode,
            "depth": depth,
            "layer": layer,
            **bounded("rank_correlation", float(values[depth]) - index / 50),
            **bounded("ssim", float(values[depth]) / 2),
            "images": 100,
        }
        for index, method in enumerate(methods)
        for mode in ("cascading", "independent")
        for depth, layer in enumerate((None, *layers))
    ]


def ablation(values=(8, 16, 32), best=70.0):
    return [
        {"method": "group_cam", "option": option, "value": value, **bounded("iou", best - place), **bounded("auc", 0.5)}
        for option in ("groups", "sigma")
        for place, value in enumerate(values)
    ]


def masking(methods=("explainer", "grad_cam"), diagonal=0.87):
    rows = []
    for method in methods:
        for target in CLASSES:
            row = {"method": method, "target": target, "images": 12, **bounded("none", 0.75)}
            for name in CLASSES:
                row |= bounded(name, diagonal if name == target else 0.125)
            rows.append(row)
    return rows


KINDS = {
    plot_curves: (curves(), curves(power=3.0)),
    plot_sanity: (sanity(), sanity(last=0.2)),
    plot_ablation: (ablation(), ablation(best=71.0)),
    plot_masking: (masking(), masking(diagonal=0.5)),
}


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Rows -> the figure, after it was written."""
    figures = []
    original = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, file: (figures.append(figure), original(figure, file)))

    def drawn(plot, rows):
        write_table(rows, tmp_path / "rows")
        plot(tmp_path / "rows.csv", tmp_path / "picture.png")
        figures[-1].canvas.draw()  # now extents are those of its own resolution
        return figures[-1]

    return drawn


def boxes(artists):
    return [artist.get_window_extent() for artist in artists]


def assert_apart(artists):
    """No two of them share more than the pixel by which extents are rounded."""
    found = [box.padded(-1) for box in boxes(artists)]
    for index, box in enumerate(found):
        assert not any(box.overlaps(other) for other in found[:index]), artists[index]


def texts(figure):
    """Everything that is written beside the panels."""
    for axes in figure.axes:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label, axes.yaxis.label]
        yield from (label for label in labels if label.get_visible() and label.get_text())


def lines(axes):
    """The methods' lines, without those that only guide the eye."""
    return [line for line in axes.lines if line.get_linewidth() == 1.4]


@pytest.mark.parametrize("plot", KINDS, ids=lambda plot: plot.__name__)
def test_pictures_have_a_sensible_size_repeat_and_change_with_the_data(plot, tmp_path):
    pictures = []
    for index, rows in enumerate((KINDS[plot][0], *KINDS[plot])):
        write_table(rows, tmp_path / str(index))
        file = tmp_path / "new" / f"{index}.png"
        plot(tmp_path / f"{index}.csv", file)
        with Image.open(file) as picture:
            assert all(300 < side < 2500 for side in picture.size)
            pictures.append(np.asarray(picture.convert("L")).astype(int))
        assert np.ptp(pictures[-1]) > 200
    first, again, other = pictures
    assert (first == again).all()
    assert first.shape != other.shape or (first != other).any()
    assert {file.suffix for file in (tmp_path / "new").iterdir()} == {".png"}


@pytest.mark.parametrize("plot", KINDS, ids=lambda plot: plot.__name__)
def test_other_formats_go_by_their_suffix(plot, tmp_path):
    write_table(KINDS[plot][0], tmp_path / "rows")
    for suffix, start in (("pdf", b"%PDF"), ("svg", b"<?xml")):
        plot(tmp_path / "rows.csv", tmp_path / f"picture.{suffix}")
        assert (tmp_path / f"picture.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("plot", KINDS, ids=lambda plot: plot.__name__)
def test_a_missing_column_and_an_empty_table_are_errors_that_say_so(plot, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns method, .*; it has a, b"):
        plot(tmp_path / "rows.csv", tmp_path / "picture.png")
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="no rows"):
        plot(tmp_path / "rows.csv", tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


def test_a_picture_that_can_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_table(curves(), tmp_path / "rows")
    (tmp_path / "picture.png").write_bytes(b"old")

    def full(self, file, **_):
        file.write_bytes(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="No space"):
        plot_curves(tmp_path / "rows.csv", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 4  # the three tables and it


def test_curves_go_through_the_numbers_whatever_the_order_of_the_rows(draw):
    rows = curves(power=3.0)
    figure = draw(plot_curves, rows[::-1])
    for axes, name in zip(figure.axes, ("insertion", "deletion"), strict=True):
        assert axes.get_title() == name
        assert axes.get_xlabel() and figure.axes[0].get_ylabel() == "probability of the target"
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        for method, line in zip(names, axes.lines, strict=True):
            members = [row for row in rows if row["method"] == method]
            assert np.allclose(line.get_xdata(), [row["fraction"] for row in members])
            assert np.allclose(line.get_ydata(), [row[name] for row in members], rtol=1e-5)
        for line, band in zip(axes.lines, axes.collections, strict=True):
            low, high = band.get_paths()[0].get_extents().intervaly
            assert low == pytest.approx(min(line.get_ydata()) - 0.02, abs=1e-5)
            assert high == pytest.approx(max(line.get_ydata()) + 0.02, abs=1e-5)


def test_percentages_are_drawn_and_named_as_such(draw):
    rows = [
        {name: value * 100 if name[:2] in ("in", "de") else value for name, value in row.items()} for row in curves()
    ]
    axes = draw(plot_curves, rows).axes[0]
    assert axes.get_ylim() == (0, 100)
    assert axes.get_ylabel() == "probability of the target in %"


def test_a_missing_number_is_a_gap(draw):
    rows = curves()
    rows[1] |= {name: None for name in rows[1] if name.startswith("insertion")}
    values = draw(plot_curves, rows).axes[0].lines[0].get_ydata()
    assert np.isnan(values).tolist() == [False, True, False, False]


def test_thirty_five_methods_differ_and_neighbours_in_both_colour_and_line():
    looks = [
        (style["color"], style["linestyle"])
        for style in plots.line_styles([(str(number),) for number in range(35)]).values()
    ]
    assert len(set(looks)) == 35
    for one, other in zip(looks, looks[1:], strict=False):
        assert one[0] != other[0] and one[1] != other[1]


@pytest.mark.parametrize("plot, rows", [(plot_curves, curves(MANY)), (plot_sanity, sanity(MANY, LONG_LAYERS))])
def test_twenty_methods_and_long_layer_names_overlap_nothing_and_stay_inside(draw, plot, rows):
    figure = draw(plot, rows)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(MANY)
    assert_apart([legend, *figure.axes])
    assert_apart(legend.get_texts())
    for axes in figure.axes:
        assert_apart([label for label in axes.get_xticklabels() if label.get_text()])
    page = figure.bbox.padded(1)
    for box in boxes([legend, *texts(figure)]):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


def test_the_sanity_grid_has_a_row_a_measure_and_a_column_a_mode(draw):
    rows = sanity()
    figure = draw(plot_sanity, rows[::-1])  # modes and methods in the order of the file
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["grad_cam", "explainer"]
    cells = [(measure, mode) for measure in ("rank_correlation", "ssim") for mode in ("independent", "cascading")]
    for axes, (measure, mode) in zip(figure.axes, cells, strict=True):
        for method, line in zip(names, lines(axes), strict=True):
            wanted = [row[measure] for row in rows if (row["method"], row["mode"]) == (method, mode)]
            assert np.allclose(line.get_ydata(), wanted, rtol=1e-5)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["independent", "cascading"]
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["none", "fc", "conv2", "conv1"]


def test_of_a_hundred_layers_only_some_are_named_each_at_its_place(draw):
    axes = draw(plot_sanity, sanity(layers=[f"layer{number}" for number in range(1, 101)])).axes[-1]
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    assert 20 < len(labels) <= plots.TICKS
    for label in labels[1:]:
        assert label.get_text() == f"layer{label.get_position()[0]:.0f}"
    assert_apart(labels)


def test_an_ablation_shows_its_values_in_the_order_given_with_their_intervals(draw):
    figure = draw(plot_ablation, [{**row, "seconds": 1.0} for row in ablation(values=(32, "auto", 8))])
    assert [axes.get_ylabel() for axes in figure.axes] == ["iou", "auc"] * 2
    assert [axes.get_xlabel() for axes in figure.axes] == ["groups", "groups", "sigma", "sigma"]
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32", "auto", "8"]
    values, *bars = axes.lines
    assert values.get_ydata().tolist() == [70, 69, 68]
    for place, bar in enumerate(bars):
        assert list(bar.get_xdata()) == [place, place]
        assert list(bar.get_ydata()) == pytest.approx([69.98 - place, 70.02 - place])


def test_an_ablation_without_a_measure_is_an_error(tmp_path):
    (tmp_path / "rows.csv").write_text("method,option,value,iou\na,b,1,2\n")
    with pytest.raises(ValueError, match="no column with its bounds"):
        plot_ablation(tmp_path / "rows.csv", tmp_path / "picture.png")


def test_the_masking_matrix_has_its_numbers_written_in(draw):
    rows = masking()
    rows[0] |= {name: None for name in ("dog", "dog_low", "dog_high")}
    rows[1] |= {"cat_low": None, "cat_high": None}
    figure = draw(plot_masking, rows)
    first, second, bar = figure.axes
    assert (first.get_title(), second.get_title()) == ("explainer", "grad_cam")
    assert [label.get_text() for label in first.get_xticklabels()] == ["none", *CLASSES]
    assert [label.get_text() for label in first.get_yticklabels()] == [f"{name} (12)" for name in CLASSES]
    assert bar.get_ylabel() == "probability of the target"
    written = {text.get_position(): text.get_text() for text in first.texts if text.get_text()}
    assert [written[across, 0] for across in range(4)] == ["0.75", "0.87", "–", "0.12"]
    assert written[1, 0.05] == "[0.85, 0.89]"
    assert (2, 0.05) not in written and (1, 1.05) not in written
    (image,) = first.images
    assert image.get_array().mask.tolist() == [[False, False, True, False], [False] * 4, [False] * 4]
    assert image.get_clim() == (0, 1)


def test_numbers_fit_their_cells_and_heat_maps_stand_apart(draw):
    rows = [
        {name: value * 100 if isinstance(value, float) else value for name, value in row.items()}
        for row in masking(MANY[-5:], diagonal=1.0)
    ]
    figure = draw(plot_masking, rows)
    assert figure.axes[0].images[0].get_clim() == (0, 100)
    assert len(figure.axes) == 6  # five methods on six places, and the scale
    assert_apart(figure.axes)
    assert_apart(list(texts(figure)))
    for axes in figure.axes[:5]:
        assert_apart([text for text in axes.texts if text.get_text()])
        width = axes.bbox.width / (1 + len(CLASSES))
        assert max(box.width for box in boxes([text for text in axes.texts if text.get_text()])) < width


def test_dollars_in_names_are_no_formula(draw):
    figure = draw(plot_curves, curves(methods=("a$b$", "x^{$")))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"a\$b\$", r"x^{\$"]
