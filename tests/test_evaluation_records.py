"""No score that was written is lost, none is computed twice, and none of another image is taken for it."""

import json
import multiprocessing
import os
import signal

import pytest

from explainer.evaluation import Records
from explainer.evaluation import records as records_module
from explainer.evaluation.records import MethodScores, Record

ROW = {"class": None, "iou": 0.1 + 0.2}


def score(value):
    return Record([{"iou": value}])


def values(records, *images, job="job"):
    """The scores of images, in the order of the answer."""
    return [(name, record.rows[0]["iou"]) for name, record in records.of(job, images)]


def test_what_was_written_is_read_exactly(tmp_path):
    rows = [ROW, {"class": "é\u2028\n", "iou": float("nan"), "curve": "AAAA"}, {"count": 3, "flag": True}]
    kept = {"a": Record(rows), "b": Record(failed="ValueError: é"), "c": Record(left_out="without a class")}
    writer = Records(tmp_path / "not" / "there" / "yet")
    for image, record in kept.items():
        writer.add("job", image, "content", record)
    found = dict(Records(writer.folder).of("job", list("abc")))
    assert repr(found) == repr(kept)  # NaN is not equal to itself


def test_a_folder_that_does_not_exist_has_no_records_and_is_not_made_by_looking(tmp_path):
    records = Records(tmp_path / "later")
    assert records.of("job", ["a"]) == []
    assert not records.is_done("job", "a", "content")
    records.read()
    assert not list(tmp_path.iterdir())


def test_the_order_is_that_of_the_images_asked_for(tmp_path):
    records = Records(tmp_path)
    for number, image in enumerate("cab"):
        records.add("job", image, "content", score(number))
    for source in (records, Records(tmp_path)):
        assert values(source, "b", "x", "c", "a") == [("b", 2), ("c", 0), ("a", 1)]
        assert values(source, "a", job="another") == []


def test_what_is_done_depends_on_job_image_and_content_and_a_failure_is_tried_again(tmp_path):
    records = Records(tmp_path)
    records.add("job", "good", "content", score(1))
    records.add("job", "left out", "content", Record(left_out="without a mask"))
    records.add("job", "failed", "content", Record(failed="ValueError"))
    for source in (records, Records(tmp_path)):
        assert source.is_done("job", "good", "content")
        assert source.is_done("job", "left out", "content")
        assert not source.is_done("job", "failed", "content")
        assert not source.is_done("job", "good", "other content")
        assert not source.is_done("job", "other", "content")
        assert not source.is_done("other", "good", "content")


def test_an_image_that_changed_has_one_record_the_new_one(tmp_path):
    records = Records(tmp_path)
    records.add("job", "a", "before", score(1))
    records.add("job", "a", "after", score(2))
    for source in (records, Records(tmp_path)):
        assert values(source, "a") == [("a", 2)]
        assert source.is_done("job", "a", "after")
        assert not source.is_done("job", "a", "before")


def test_a_score_takes_a_failure_s_place_and_the_other_way_round(tmp_path):
    for first, second in ((Record(failed="no"), score(1)), (score(1), Record(failed="no"))):
        records = Records(tmp_path)
        records.add("job", "a", "content", first)
        records.add("job", "a", "content", second)
        assert Records(tmp_path).of("job", ["a"]) == [("a", second)]


def test_the_latest_record_counts_whichever_process_wrote_it(tmp_path, monkeypatch):
    clock = iter([10.0, 30.0, 20.0, 40.0])
    monkeypatch.setattr(records_module.time, "time", lambda: next(clock))
    for rank, image, value in ((0, "a", 1), (1, "a", 2), (0, "b", 3), (1, "b", 4)):
        Records(tmp_path / "apart" / image, rank).add("job", image, "content", score(value))
    lines = {
        (rank, image): (tmp_path / "apart" / image / f"rank{rank}.jsonl").read_text()
        for rank in (0, 1)
        for image in "ab"
    }
    for ranks in ((0, 1), (1, 0)):  # whichever file is read first
        folder = tmp_path / f"{ranks}"
        folder.mkdir()
        for rank, other in zip((0, 1), ranks, strict=True):
            (folder / f"rank{rank}.jsonl").write_text(lines[other, "a"] + lines[other, "b"])
        assert values(Records(folder), "a", "b") == [("a", 2), ("b", 4)]


def test_a_clock_that_was_set_back_does_not_bring_an_old_record_back(tmp_path, monkeypatch):
    clock = iter([100.0, 50.0, 60.0])
    monkeypatch.setattr(records_module.time, "time", lambda: next(clock))
    Records(tmp_path, rank=1).add("job", "a", "content", score(1))
    Records(tmp_path, rank=0).add("job", "a", "content", score(2))
    assert values(Records(tmp_path), "a") == [("a", 2)]
    Records(tmp_path, rank=1).add("job", "a", "content", score(3))
    assert values(Records(tmp_path), "a") == [("a", 3)]


def test_the_files_of_all_processes_are_merged_and_each_writes_its_own(tmp_path):
    first, second = Records(tmp_path, rank=0), Records(tmp_path, rank=1)
    first.add("job", "a", "content", score(1))
    second.add("job", "b", "content", score(2))
    second.add("other", "a", "content", score(3))
    assert values(first, "a", "b") == [("a", 1)]
    for records in (first, second):
        records.read()
        assert values(records, "a", "b") == [("a", 1), ("b", 2)]
    assert values(first, "a", job="other") == [("a", 3)]
    lines = {file.name: len(file.read_text().splitlines()) for file in tmp_path.iterdir()}
    assert lines == {"rank0.jsonl": 1, "rank1.jsonl": 2}


def test_wherever_a_line_is_cut_only_that_record_is_lost_and_the_next_does_not_stick_to_it(tmp_path):
    records = Records(tmp_path)
    records.add("job", "a", "content", score(1))
    records.add("job", "b", "content", Record([{"iou": 2, "class": "é"}]))
    file = tmp_path / "rank0.jsonl"
    whole = file.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole) + 1):
        file.write_bytes(whole[:end])
        resumed = Records(tmp_path)
        survived = end >= len(whole) - 1  # only the line's end may be missing
        assert resumed.is_done("job", "b", "content") == survived
        resumed.add("job", "c", "content", score(3))
        expected = [("a", 1), *([("b", 2)] if survived else []), ("c", 3)]
        assert values(Records(tmp_path), "a", "b", "c") == expected
        resumed.add("job", "b", "content", score(4))
        assert values(Records(tmp_path), "a", "b", "c") == [("a", 1), ("b", 4), ("c", 3)]


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 64, b"\xff\xfe\xe9", b"{}", b"5", b"null", b"[]", b"[1, 2]", b"[1,2,3,4,5,6,7,8,9]", b""]
)
def test_a_line_that_is_none_is_passed_over(tmp_path, rubbish):
    records = Records(tmp_path)
    records.add("job", "a", "content", score(1))
    with (tmp_path / "rank0.jsonl").open("ab") as opened:
        opened.write(rubbish + b"\n")
    records.add("job", "b", "content", score(2))
    assert values(Records(tmp_path), "a", "b") == [("a", 1), ("b", 2)]


def die_in_a_long_line(folder):
    """Write half of a line that is longer than any buffer, then what `kill -9` does."""
    records = Records(folder)
    records.add("job", "a", "content", score(1))
    line = json.dumps([0.0, "job", "b", "content", [{"curve": "x" * 100_000}], "", ""])
    with (folder / "rank0.jsonl").open("ab", buffering=0) as opened:
        opened.write(line[: len(line) // 2].encode())
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_s_last_line_is_dropped_and_the_work_goes_on(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=die_in_a_long_line, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    records = Records(tmp_path)
    assert not records.is_done("job", "b", "content")
    records.add("job", "b", "content", Record([{"iou": 2, "curve": "y" * 100_000}]))
    assert values(Records(tmp_path), "a", "b") == [("a", 1), ("b", 2)]


def test_a_record_is_on_disk_when_the_next_one_is_computed(tmp_path):
    records = Records(tmp_path)
    for count in range(1, 4):
        records.add("job", str(count), "content", score(count))
        assert len((tmp_path / "rank0.jsonl").read_text().splitlines()) == count


def test_flat_rows_name_their_image():
    scores = MethodScores("rise", {"b": [{"iou": 1}, {"iou": 2}], "a": [{"iou": 3}], "c": []}, {})
    assert list(scores.flat) == [{"image": "b", "iou": 1}, {"image": "b", "iou": 2}, {"image": "a", "iou": 3}]
