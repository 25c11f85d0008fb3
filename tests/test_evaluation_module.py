"""The loop: each map is computed once, each score once, and no table's scores depend on what others ask."""

from collections import Counter

import pytest
import torch
from test_evaluation_images import make_batch
from toy_models import SIZE, SmallNet, freeze

from datamodules.batch import VOID
from explainer.attribution import AttributionMethod
from explainer.evaluation import Evaluation, Job, MapCache, NamedMethod, Records
from explainer.evaluation.maps import MapSource
from explainer.evaluation.tables import SegmentationOptions, SegmentationTable, Table
from explainer.evaluation.tables.base import WITHOUT_CLASS, WITHOUT_MASK
from explainer.machine import MachineOptions, make_trainer

IMAGES, BATCH = 8, 4
NAMES = [f"image{index}" for index in range(IMAGES)]


class Toy(AttributionMethod):
    """Notes the classes it is asked for, call by call; fails on some (image's brightness's sign, class)."""

    def __init__(self, explanandum, fails=lambda image, target: False):
        super().__init__(explanandum)
        self.fails = fails
        self.calls = []

    def __call__(self, image, target):
        self.calls.append(target.tolist())
        if any(self.fails(*pair) for pair in zip(image, target.tolist(), strict=True)):
            raise RuntimeError("too hard")
        return image.mean(dim=1) * (1 + target[:, None, None])


class Asks(Table):
    """Wants the classes that it is told; the score is the sum of their maps' means."""

    def __init__(self, name, asks=lambda images: images.labels, limit=None, **attributes):
        super().__init__(None)
        self.name = name
        self._asks, self._limit = asks, limit
        self.scored = []
        vars(self).update(attributes)

    @property
    def limit(self):
        return self._limit

    def asks(self, images):
        return self._asks(images)

    def score(self, images, maps, row):
        self.scored += [(row.name, name) for name in images.names]
        assert len(maps.maps) == (self.asks(images).sum() if self.wants_maps else 0)
        if not self.wants_maps:
            row.method(images.image, images.predicted)
        sums = torch.zeros(len(images)).index_add_(0, maps.image_index, maps.maps.mean(dim=(1, 2)))
        return [[{"value": value}] for value in sums.tolist()]

    def score_own(self, name, images):
        self.scored += [(name, one) for one in images.names]
        return [[{"value": image.mean().item()}] for image in images.image]

    def main_rows(self, scores):
        raise NotImplementedError

    def summarise(self, scores):
        raise NotImplementedError


def everything(images):
    return torch.ones_like(images.labels)


def only(target):
    return lambda images: images.one_hot(torch.full((len(images),), target))


@pytest.fixture(scope="module")
def explanandum():
    return freeze(SmallNet())


def make_batches(**changes):
    """Two batches of four images."""
    whole = make_batch(IMAGES, skipped=(), mask=None, **changes)
    tensors = {"image", "labels"} | ({"mask"} if "mask" in changes else set())
    return [
        whole._replace(
            **{name: getattr(whole, name)[start : start + BATCH] for name in tensors},
            **{
                name: getattr(whole, name)[start : start + BATCH]
                for name in ("image_id", "boxes", "original_size", "cue_mask")
            },
        )
        for start in range(0, IMAGES, BATCH)
    ]


def evaluate(explanandum, jobs, folder, batches=None, maps=True, image_ids=NAMES, precision="32-true", further=()):
    """Run the loop, as evaluate.py does."""
    source, records = MapSource(MapCache(folder / "maps" if maps else None)), Records(folder / "scores")
    evaluation = Evaluation(explanandum, jobs, source, records, image_ids, precision, further).to(
        memory_format=torch.channels_last
    )
    loader = torch.utils.data.DataLoader(make_batches() if batches is None else batches, batch_size=None)
    trainer = make_trainer(
        MachineOptions(accelerator="cpu", precision="32-true"), inference_mode=False, enable_progress_bar=False
    )
    trainer.test(evaluation, loader, verbose=False)
    return evaluation


def row(explanandum, name="toy", key=None, **options):
    return NamedMethod(name, Toy(explanandum, **options), key or name)


def lines(folder):
    """Records written so far."""
    return sum(len(file.read_text().splitlines()) for file in (folder / "scores").glob("*"))


# Once.


@pytest.mark.parametrize("maps", [True, False])
def test_a_method_is_asked_once_a_batch_whatever_number_of_tables_wants_its_maps(explanandum, tmp_path, maps):
    tables = [Asks("present"), Asks("all", everything), Asks("one", only(2))]
    method = row(explanandum)
    evaluate(explanandum, [Job(table, method) for table in tables], tmp_path, maps=maps)
    assert method.method.calls == [[0, 1, 2] * BATCH] * 2


@pytest.mark.parametrize("maps", [True, False])
def test_tables_that_built_the_method_anew_still_share_its_maps(explanandum, tmp_path, maps):
    jobs = [Job(Asks(f"table{number}", everything), row(explanandum)) for number in range(3)]
    evaluate(explanandum, jobs, tmp_path, maps=maps)
    assert [len(job.method.method.calls) for job in jobs] == [2, 0, 0]


def test_rows_of_equal_maps_are_scored_once_and_both_shown(explanandum, tmp_path):
    table = Asks("table")
    jobs = [Job(table, row(explanandum, name, key="same")) for name in ("group_cam", "group_cam:groups=32")]
    evaluation = evaluate(explanandum, jobs, tmp_path)
    assert len(table.scored) == IMAGES == lines(tmp_path)
    first, second = (evaluation.scores(job) for job in jobs)
    assert (first.method, second.method) == ("group_cam", "group_cam:groups=32")
    assert first.rows == second.rows
    assert list(first.rows) == NAMES


@pytest.mark.parametrize("maps", [True, False])
def test_a_second_run_computes_nothing_and_gives_the_same_scores(explanandum, tmp_path, maps):
    def jobs():
        method, table = row(explanandum), Asks("table", own_rows=("own",))
        return [Job(table, method), Job(Asks("other", only(1)), method), Job(table, own_row="own")]

    first, second = jobs(), jobs()
    expected = evaluate(explanandum, first, tmp_path, maps=maps)
    written = lines(tmp_path)
    found = evaluate(explanandum, second, tmp_path, maps=maps)
    assert second[0].method.method.calls == []
    assert [job.table.scored for job in second] == [[], [], []]
    assert lines(tmp_path) == written
    for job, again in zip(first, second, strict=True):
        assert expected.scores(job) == found.scores(again)
        assert list(found.scores(again).rows) == NAMES


def test_another_method_or_table_computes_only_what_is_new(explanandum, tmp_path):
    table, method = Asks("table"), row(explanandum)
    evaluate(explanandum, [Job(table, method)], tmp_path)
    calls, scored = len(method.method.calls), len(table.scored)
    more, other = Asks("more"), row(explanandum, "other")
    evaluate(explanandum, [Job(table, method), Job(more, method), Job(table, other)], tmp_path)
    assert len(method.method.calls) == calls, "The new table's maps were there already."
    assert [name for name, _ in table.scored[scored:]] == ["other"] * IMAGES
    assert [name for name, _ in more.scored] == ["toy"] * IMAGES
    assert len(other.method.calls) == 2


@pytest.mark.parametrize("change", ["precision", "classifier", "table"])
def test_what_decides_a_score_is_not_taken_from_another_evaluation(explanandum, tmp_path, change):
    evaluate(explanandum, [Job(Asks("table"), row(explanandum))], tmp_path)
    table = Asks("other" if change == "table" else "table")
    evaluate(
        freeze(SmallNet(seed=1)) if change == "classifier" else explanandum,
        [Job(table, row(explanandum))],
        tmp_path,
        precision="bf16-mixed" if change == "precision" else "32-true",
    )
    assert len(table.scored) == IMAGES


def test_only_the_image_that_changed_is_scored_again(explanandum, tmp_path):
    evaluate(explanandum, [Job(Asks("table"), row(explanandum))], tmp_path)
    batches = make_batches()
    batches[1].labels[2] = torch.tensor([1.0, 1.0, 1.0])
    table = Asks("table")
    job = Job(table, row(explanandum))
    evaluation = evaluate(explanandum, [job], tmp_path, batches)
    assert table.scored == [("toy", "image6")]
    assert list(evaluation.scores(job).rows) == NAMES


def test_what_all_processes_wrote_is_read_in_the_split_s_order_and_must_be_whole(explanandum, tmp_path):
    table, batches = Asks("table"), make_batches()
    whole = evaluate(explanandum, [job := Job(table, row(explanandum))], tmp_path / "whole", batches)
    first, second = reversed(batches)
    with pytest.raises(ValueError, match="4 of 8 images have no score of toy in the table 'table'. Every process must"):
        evaluate(explanandum, [job], tmp_path / "shared", [first])
    file = tmp_path / "shared" / "scores" / "rank0.jsonl"
    file.rename(file.with_name("rank1.jsonl"))
    evaluation = evaluate(explanandum, [job], tmp_path / "shared", [second])
    assert file.is_file()
    assert evaluation.scores(job) == whole.scores(job)
    assert list(evaluation.scores(job).rows) == NAMES


# Failures.


def test_a_table_does_not_suffer_from_a_map_that_only_another_wants(explanandum, tmp_path):
    method = row(explanandum, fails=lambda image, target: target == 2)
    good, bad = Job(Asks("good", only(1)), method), Job(Asks("bad", everything), method)
    evaluation = evaluate(explanandum, [good, bad], tmp_path)
    assert not evaluation.scores(good).failed
    assert list(evaluation.scores(good).rows) == NAMES
    assert evaluation.scores(bad).failed == dict.fromkeys(NAMES, "RuntimeError: too hard")
    alone = evaluate(explanandum, [good], tmp_path / "alone")
    assert alone.scores(good) == evaluation.scores(good)


def test_an_image_that_fails_leaves_the_others_and_is_tried_again(explanandum, tmp_path):
    bad = make_batches()[1].image[3]
    method = row(explanandum, fails=lambda image, target: image.equal(bad))
    job = Job(Asks("table"), method)
    scores = evaluate(explanandum, [job], tmp_path).scores(job)
    assert scores.failed == {"image7": "RuntimeError: too hard"}
    assert list(scores.rows) == NAMES[:-1]
    mended = Job(Asks("table"), row(explanandum))
    scores = evaluate(explanandum, [mended], tmp_path).scores(mended)
    assert not scores.failed
    assert list(scores.rows) == NAMES
    assert mended.table.scored == [("toy", "image7")]


def test_a_table_that_calls_methods_loses_only_the_image_that_fails(explanandum, tmp_path):
    bad = make_batches()[0].image[1]
    method = row(explanandum, fails=lambda image, target: image.equal(bad))
    job = Job(Asks("timing", wants_maps=False, calls_methods=True), method)
    scores = evaluate(explanandum, [job], tmp_path).scores(job)
    assert scores.failed == {"image1": "RuntimeError: too hard"}
    assert list(scores.rows) == [name for name in NAMES if name != "image1"]


def test_an_error_of_a_table_itself_is_not_put_on_the_method(explanandum, tmp_path):
    class Broken(Asks):
        def score(self, images, maps, row):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        evaluate(explanandum, [Job(Broken("table"), row(explanandum))], tmp_path)
    assert lines(tmp_path) == 0


def test_a_table_that_wants_no_maps_makes_nobody_compute_any(explanandum, tmp_path):
    method = row(explanandum)
    evaluate(explanandum, [Job(Asks("timing", everything, wants_maps=False, calls_methods=True), method)], tmp_path)
    assert [len(call) for call in method.method.calls] == [BATCH, BATCH], "Only the table's own calls."
    assert not (tmp_path / "maps").exists()


# Which images.


@pytest.mark.parametrize(
    ("limit", "chosen"),
    [(None, range(8)), (0, []), (1, [0]), (2, [0, 4]), (3, [0, 2, 5]), (8, range(8)), (99, range(8))],
)
def test_a_limit_takes_so_many_images_evenly_spaced_over_the_split(explanandum, tmp_path, limit, chosen):
    job, other = (Job(Asks(name, limit=size), row(explanandum)) for name, size in (("few", limit), ("all", None)))
    evaluation = evaluate(explanandum, [job, other], tmp_path)
    assert list(evaluation.scores(job).rows) == [f"image{index}" for index in chosen]
    assert list(evaluation.scores(other).rows) == NAMES


def test_further_images_come_to_those_of_the_limit_and_the_loader_needs_to_hold_no_others(explanandum, tmp_path):
    method = row(explanandum)
    job = Job(Asks("few", limit=2), method)
    evaluate(explanandum, [job], tmp_path)
    (batch,) = (batch._replace(**first(batch, 2)) for batch in make_batches()[1:])  # image4 and image5
    for _ in range(2):
        evaluation = evaluate(explanandum, [job], tmp_path, [batch], further=["image4", "image5"])
        assert list(evaluation.scores(job).rows) == ["image0", "image4", "image5"]
    assert job.table.scored == [("toy", "image0"), ("toy", "image4"), ("toy", "image5")]
    assert len(method.method.calls) == 3, "Neither what was scored before nor what was added is computed again."


def test_images_outside_a_limit_are_no_business_of_the_table_s_however_they_are(explanandum, tmp_path):
    batches = make_batches()
    batches[0].labels[[0, 1]] = 0
    batches[1] = batches[1]._replace(skipped=("broken",))
    table = Asks("few", limit=2)
    job, other = Job(table, row(explanandum)), Job(Asks("all"), row(explanandum))
    ids = [*NAMES, "broken"]
    for _ in range(2):  # records of all images are there the second time
        evaluation = evaluate(explanandum, [job, other], tmp_path, batches, image_ids=ids)
        assert evaluation.left_out(table) == {WITHOUT_CLASS: 1}
        assert evaluation.left_out(other.table) == {WITHOUT_CLASS: 2, "unreadable": 1}


def test_a_smaller_split_does_not_count_what_a_larger_one_left_out(explanandum, tmp_path):
    batches = make_batches()
    batches[1].labels[:] = 0
    job = Job(Asks("table"), row(explanandum))
    assert evaluate(explanandum, [job], tmp_path, batches).left_out(job.table) == {WITHOUT_CLASS: 4}
    fewer = evaluate(explanandum, [job], tmp_path, batches[:1], image_ids=NAMES[:BATCH])
    assert fewer.left_out(job.table) == {}


def test_reasons_are_counted_once_an_image_whatever_number_of_rows(explanandum, tmp_path):
    mask = torch.ones(IMAGES, SIZE, SIZE, dtype=torch.uint8)
    mask[[1, 2]] = VOID
    batches = [batch._replace(mask=part) for batch, part in zip(make_batches(), mask.split(BATCH), strict=True)]
    batches[0].labels[2] = 0  # without class and mask: counts as one without a class
    batches[1].labels[0] = 0
    batches[0] = batches[0]._replace(skipped=("x", "y"))
    table = SegmentationTable(explanandum, SegmentationOptions())
    jobs = [Job(table, row(explanandum, name)) for name in ("one", "two")] + [Job(table, own_row="zero")]
    for _ in range(2):
        evaluation = evaluate(explanandum, jobs, tmp_path, batches, image_ids=["x", *NAMES, "y"])
        assert evaluation.left_out(table) == Counter({"unreadable": 2, WITHOUT_CLASS: 2, WITHOUT_MASK: 1})
        assert all(len(evaluation.scores(job).rows) == IMAGES - 3 for job in jobs)
    assert lines(tmp_path) == len(jobs) * (IMAGES + 2), "The second run wrote nothing."


def test_an_unreadable_image_that_was_mended_is_scored(explanandum, tmp_path):
    job, batches = Job(Asks("table"), row(explanandum)), make_batches()
    whole = evaluate(explanandum, [job], tmp_path / "whole", batches)
    broken = [batches[0]._replace(skipped=("image7",)), batches[1]._replace(**first(batches[1], 3))]
    evaluation = evaluate(explanandum, [job], tmp_path, broken)
    assert evaluation.left_out(job.table) == {"unreadable": 1}
    assert list(evaluation.scores(job).rows) == NAMES[:-1]
    evaluation = evaluate(explanandum, [job], tmp_path, batches)
    assert evaluation.left_out(job.table) == {}
    assert evaluation.scores(job).rows.keys() == whole.scores(job).rows.keys()


def first(batch, count):
    """The fields of a batch's first images."""
    names = ("image", "labels", "image_id", "cue_mask", "boxes", "original_size")
    return {name: getattr(batch, name)[:count] for name in names}


def test_a_table_without_rows_leaves_nothing_out(explanandum, tmp_path):
    evaluation = evaluate(explanandum, [Job(Asks("table"), row(explanandum))], tmp_path)
    assert evaluation.left_out(Asks("sanity")) == {}


def test_own_rows_need_no_method(explanandum, tmp_path):
    job = Job(Asks("table"), own_row="half")
    scores = evaluate(explanandum, [job], tmp_path).scores(job)
    assert (scores.method, list(scores.rows), scores.classifier) == ("half", NAMES, "")
    assert job.table.scored == [("half", name) for name in NAMES]


def test_networks_of_all_methods_are_moved_along_with_the_module(explanandum, tmp_path):
    method = row(explanandum)
    other = NamedMethod("other", Toy(freeze(SmallNet(seed=1))), "other")
    jobs = [Job(Asks("table"), one) for one in (method, other)]
    evaluation = Evaluation(explanandum, jobs, MapSource(MapCache(None)), Records(tmp_path), NAMES, "32-true")
    assert list(evaluation.networks) == [explanandum, other.method.explanandum]


def test_a_score_that_is_no_finite_number_is_a_failure_with_a_name(explanandum, tmp_path, capsys):
    class Broken(Asks):
        def score(self, images, maps, row):
            rows = super().score(images, maps, row)
            rows[0][0]["merit"] = float("nan")
            return rows

    job = Job(Broken("table"), row(explanandum))
    failed = evaluate(explanandum, [job], tmp_path).scores(job).failed
    assert failed == {"image0": "merit is nan", "image4": "merit is nan"}
    said = [line for line in capsys.readouterr().out.splitlines() if "failed" in line]
    assert said == ["toy failed on image0 (table): merit is nan"], "The first failure is told at once."
