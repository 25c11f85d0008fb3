"""The sanity check: an untouched classifier, or a method that asks none, gives 1; a method that explains does not.

H×W pixels.
"""

import pytest
import torch
from toy_models import SIZE, BreakableNet, BrokenError, GapNet, SmallNet, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, scores_of

from explainer.attribution import METHODS
from explainer.evaluation.options import Setting, TableOptions, make_table
from explainer.evaluation.records import MethodScores
from explainer.evaluation.tables import SanityOptions, SanityTable, SplitFacts

LAYERS = ["logits", "head.1", "features.4", "features.0"]
"""Of a SmallNet, from the output on."""


def rebuild(name, explanandum):
    return METHODS[name](explanandum)


def table_of(net=None, make=rebuild, **options):
    explanandum = freeze(net or SmallNet())
    return SanityTable(explanandum, SanityOptions(**options), make), explanandum


def scored(table, name, labels=((0,), (1,), (2,))):
    explanandum = table.explanandum
    images = make_images(explanandum, noise(len(labels), 3, SIZE, SIZE), list(map(list, labels)))
    method = METHODS[name](explanandum)
    maps = torch.stack(
        [method(images.image, torch.full((len(labels),), target)) for target in range(explanandum.num_classes)], dim=1
    )
    return scores_of(table, images, maps, name)


def curves(table, *scores):
    return table.summarise(scores)["sanity"]


def test_a_classifier_that_is_not_changed_gives_1_everywhere():
    original = freeze(SmallNet())
    table, _ = table_of(make=lambda name, copy: METHODS[name](original))
    rows = curves(table, scored(table, "grad_cam"))
    assert len(rows) == 2 * len(LAYERS)
    for row in rows:
        assert row["rank_correlation"] == pytest.approx(1, abs=1e-5)
        assert row["ssim"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["random", "center"])
def test_a_method_that_asks_no_classifier_gives_1_everywhere(name):
    table, _ = table_of()
    for row in curves(table, scored(table, name)):
        assert row["rank_correlation"] == pytest.approx(1, abs=1e-5)
        assert row["ssim"] == pytest.approx(1, abs=1e-5)


def test_a_method_that_explains_the_classifier_changes_with_it():
    table, _ = table_of()
    for row in curves(table, scored(table, "grad_cam")):
        assert row["rank_correlation"] < 0.95, row["layer"]


@pytest.mark.parametrize(
    "options, layers",
    [({}, LAYERS), ({"linear": False}, LAYERS[2:]), ({"modes": ("independent",)}, LAYERS)],
    ids=str,
)
def test_the_rows_go_from_the_output_to_the_input_in_each_mode(options, layers):
    table, _ = table_of(**options)
    rows = curves(table, scored(table, "random"), scored(table, "center"))
    modes = options.get("modes", ("cascading", "independent"))
    assert [(row["method"], row["mode"], row["depth"], row["layer"]) for row in rows] == [
        (method, mode, depth, layer)
        for method in ("random", "center")
        for mode in modes
        for depth, layer in enumerate(layers, start=1)
    ]
    assert {row["images"] for row in rows} == {3}


def test_cascading_keeps_earlier_layers_random_and_independent_does_not():
    """At the first layer both change it alone; below it only the cascade still has the others changed."""
    seen = {}

    def watch(name, copy):
        original = table.explanandum.model
        changed = [
            layer
            for layer in LAYERS
            if not torch.equal(copy.model.get_submodule(layer).weight, original.get_submodule(layer).weight)
        ]
        seen.setdefault(len(seen), changed)
        return METHODS[name](copy)

    table, _ = table_of(make=watch)
    scored(table, "center")
    assert list(seen.values()) == [LAYERS[: depth + 1] for depth in range(4)] + [[layer] for layer in LAYERS]


def test_the_class_is_the_one_that_the_untouched_classifier_predicts():
    asked = []

    class Watched(METHODS["center"]):
        def __call__(self, image, target):
            asked.append(target.tolist())
            return super().__call__(image, target)

    table, explanandum = table_of(make=lambda name, copy: Watched(copy))
    images = make_images(explanandum, noise(3, 3, SIZE, SIZE), [[0], [1], []])
    scored(table, "center")
    assert asked == [images.predicted.tolist()] * 2 * len(LAYERS)
    assert table.asks(images).int().argmax(dim=1).tolist() == images.predicted.tolist()
    assert table.left_out(images) == ["", "", ""]  # no label is needed


def test_a_method_that_can_not_be_made_or_called_anew_is_not_swallowed():
    """The loop turns the error into a failure of the image, with its reason."""

    def refuse(name, copy):
        raise RuntimeError("not for this classifier")

    table, _ = table_of(make=refuse)
    with pytest.raises(RuntimeError, match="not for this classifier"):
        scored(table, "center")
    assert table.calls_methods

    def broken(name, copy):
        copy.model.breaks.broken = True
        return METHODS[name](copy)

    table, explanandum = table_of(BreakableNet(), broken)
    with pytest.raises(BrokenError):
        scored(table, "grad_cam")
    assert not explanandum.model.breaks.broken  # only the copy's


def test_the_classifier_itself_stays_as_it_is():
    table, explanandum = table_of()
    before = explanandum.fingerprint
    scored(table, "grad_cam")
    assert explanandum.fingerprint == before


class Broken(METHODS["center"]):
    """No map of the first image is finite."""

    def __call__(self, image, target):
        maps = super().__call__(image, target)
        maps[0] = torch.nan
        return maps


def test_a_map_that_is_not_finite_has_no_similarity_and_is_counted():
    """A similarity of 0 would be the best result there is."""
    table, _ = table_of(make=lambda name, copy: Broken(copy))
    scores = scored(table, "center")
    assert [cells(row, "rank_correlation", "ssim") for row in scores.rows["image0"]] == [[None, None]] * 2 * len(LAYERS)
    files = table.summarise([scores])
    for row in (*files["sanity"], *files["sanity_summary"], *table.main_rows([scores])):
        assert cells(row, "rank_correlation", "ssim") == pytest.approx([1, 1], abs=1e-5)  # of the others
        assert cells(row, "images", "failed", "not_finite") == [3, 0, 1]


def test_without_any_finite_map_there_is_no_number():
    table, _ = table_of(make=lambda name, copy: Broken(copy))
    files = table.summarise([scored(table, "center", labels=((0,),))])
    for row in (*files["sanity"], *files["sanity_summary"]):
        assert cells(row, "rank_correlation", "ssim", "images", "not_finite") == [None, None, 1, 1]


def test_a_flat_map_is_finite_and_like_no_other():
    class Flat(METHODS["center"]):
        def __call__(self, image, target):
            return torch.zeros_like(super().__call__(image, target))

    table, _ = table_of(make=lambda name, copy: Flat(copy))
    for row in curves(table, scored(table, "center")):
        assert cells(row, "rank_correlation", "not_finite") == [0, 0]


def test_the_summary_is_the_mean_over_the_layers_of_each_mode_and_methods_are_compared_in_it():
    table, _ = table_of()
    scores = [scored(table, name) for name in ("grad_cam", "center")]
    files = table.summarise([*scores, MethodScores("none", {}, {"image0": "why"})])
    rows = files["sanity_summary"]
    assert [cells(row, "method", "mode", "failed") for row in rows] == [
        [method, mode, int(method == "none")]
        for method in ("grad_cam", "center", "none")
        for mode in ("cascading", "independent")
    ]
    for one in scores:
        for mode in ("cascading", "independent"):
            values = [row["rank_correlation"] for row in one.flat if row["mode"] == mode]
            row = next(row for row in rows if (row["method"], row["mode"]) == (one.method, mode))
            assert row["rank_correlation"] == pytest.approx(sum(values) / len(values))
            assert row["rank_correlation_low"] <= row["rank_correlation"] <= row["rank_correlation_high"]
    found = files["sanity_differences"]
    assert [cells(row, "method", "other", "measure", "images") for row in found] == [
        ["grad_cam", "center", f"{mode}_{name}", 3]
        for mode in ("cascading", "independent")
        for name in ("rank_correlation", "ssim")
    ]
    assert found[0]["difference"] == pytest.approx(rows[0]["rank_correlation"] - rows[2]["rank_correlation"])


def test_equal_seeds_give_equal_rows_and_other_seeds_others():
    first, again, other = (curves(table, scored(table, "grad_cam")) for table in
                           (table_of()[0], table_of()[0], table_of(seed=1)[0]))  # fmt: skip
    assert first == again
    assert first != other


def test_the_initialisation_is_the_one_asked_for():
    drawn = {}
    for initialisation in ("he", "pytorch"):

        def keep(name, copy, initialisation=initialisation):
            drawn.setdefault(initialisation, copy.model.linear.weight.abs().max().item())
            return METHODS[name](copy)

        table, explanandum = table_of(GapNet(), keep, initialisation=initialisation)
        scored(table, "center")
    assert drawn["he"] != drawn["pytorch"]
    assert drawn["pytorch"] <= explanandum.model.linear.in_features**-0.5


def test_each_image_has_the_same_rows_and_all_methods_the_same_columns():
    table, _ = table_of()
    scores = [scored(table, name) for name in ("center", "grad_cam")]
    assert {len(rows) for one in scores for rows in one.rows.values()} == {2 * len(LAYERS)}
    assert have_equal_columns(*scores)


def test_the_main_row_is_the_mean_over_modes_and_layers():
    table, _ = table_of()
    scores = scored(table, "grad_cam")
    (row,) = table.main_rows([scores])
    every = [one["rank_correlation"] for one in scores.flat]
    assert row["rank_correlation"] == pytest.approx(sum(every) / len(every))


@pytest.mark.parametrize("size, fits", [(10, False), (11, True)])
def test_images_smaller_than_the_window_of_ssim_are_refused(size, fits):
    explanandum = freeze(SmallNet(), size=size)
    setting = Setting(explanandum, SplitFacts(False, False, False), tuple, None, {}, rebuild)
    if fits:
        assert isinstance(make_table("sanity", TableOptions(), setting), SanityTable)
    else:
        with pytest.raises(ValueError, match="'sanity' can't be made: images of 10 pixels are smaller"):
            make_table("sanity", TableOptions(), setting)


@pytest.mark.parametrize(
    "options, message",
    [({"images": 0}, "sanity.images is 0"), ({"modes": ()}, "choose some of: cascading, independent"),
     ({"modes": ("both",)}, r"sanity.modes are \['both'\]")],
)  # fmt: skip
def test_options_that_leave_no_image_or_layer_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SanityOptions(**options)


def test_a_few_images_are_enough():
    assert table_of(images=5)[0].limit == 5
