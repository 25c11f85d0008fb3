"""Training with teachers, from the command line: maps are computed once, kept, and learned from."""

import json
import os
import shutil
import time
from concurrent.futures.process import BrokenProcessPool

import killed_runs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_data import save_image
from small_runs import (
    EPOCHS,
    STEPS,
    TEACHERS,
    VALIDATION_IMAGES,
    arguments,
    assert_same_weights,
    rows,
    start,
)  # fmt: skip
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from validate_run import validate

import train
from explainer.attribution import METHODS
from explainer.attribution.spec import options_of
from explainer.capture import CannotExplain
from explainer.distillation import teachers
from explainer.distillation.cache import TeacherCache
from explainer.distillation.prepare import IncompleteError, bytes_of_maps
from explainer.distillation.stage import is_passing, share
from explainer.files import tidy
from explainer.machine import make_trainer
from programs import train_explanandum
from programs.recipes import parse

IMAGES = 8 * STEPS + VALIDATION_IMAGES


@pytest.fixture(scope="module")
def taught_run(tmp_path_factory):
    """A run with two teachers; not to be changed."""
    return train.main(arguments(tmp_path_factory.mktemp("runs"), *TEACHERS)).path


def contents(folder, run):
    """Everything that a cache holds of the images of a run, by teacher, image and class."""
    cache = TeacherCache(folder)
    splits = json.loads((run / "splits.json").read_text())
    images = [*splits["train"], *splits["val"]]
    kept = {}
    for info in cache.info():
        store = cache.store(info.about)
        for name in images:
            for label, entry in store.read(name).items():
                kept[info.about["teacher"], name, label] = (entry.map.numpy().tobytes(), round(entry.score, 5))
    return kept


def test_all_maps_are_kept_and_the_numbers_told(taught_run):
    stores = TeacherCache(taught_run.parent / "teachers").info()
    assert {info.about["teacher"] for info in stores} == {"grad_cam", "group_cam"}
    assert all(0 < info.images <= IMAGES for info in stores)
    assert len({info.maps + info.failed for info in stores}) == 1  # a flat map counts as failed
    assert all(info.about["map_size"] == 8 for info in stores)  # a quarter of 32


def test_losses_of_each_teacher_and_agreement_are_logged_and_fall(taught_run):
    lines = rows(taught_run)
    for name in ("grad_cam", "group_cam:groups=4"):
        for column in (f"train/distill/{name}", f"val/distill/{name}"):
            assert all(float(line[column]) >= 0 for line in lines)
        assert all(-1 <= float(line[f"agreement/rank_correlation/{name}"]) <= 1 for line in lines)
        assert all(0 <= float(line[f"agreement/iou/{name}"]) <= 1 for line in lines)
    losses = [float(line["train/distill"]) for line in lines]
    assert losses[-1] < losses[0]


def test_the_validation_loss_is_the_papers_alone(taught_run):
    for line in rows(taught_run):
        parts = [value for name, value in line.items() if name.startswith("val/") and name.endswith("_weighted")]
        paper = sum(map(float, parts)) - float(line["val/distill_weighted"])
        assert float(line["val_loss"]) == pytest.approx(paper, rel=1e-3)
        trained = [value for name, value in line.items() if name.startswith("train/") and name.endswith("_weighted")]
        assert float(line["train_loss"]) == pytest.approx(sum(map(float, trained)), rel=1e-3)


def test_teacher_maps_are_in_the_pictures(taught_run, small_run):
    wide, narrow = (np.asarray(Image.open(run / "masks.png")) for run in (taught_run, small_run))
    tile = narrow.shape[1] // 6
    assert wide.shape[1] == narrow.shape[1] + 3 * tile  # mask and two teachers
    read = EventAccumulator(str(taught_run / "tensorboard" / "explainer"), size_guidance={"images": 0})
    read.Reload()
    assert read.Tags()["images"]


def test_a_second_run_computes_no_map_and_trains_the_same(taught_run, monkeypatch, capsys):
    asked = []
    for name in ("grad_cam", "group_cam"):
        monkeypatch.setattr(METHODS[name], "present_class_maps", lambda *_: asked.append(True))
    again = train.main([*arguments(taught_run.parent, *TEACHERS), "--name", "again"]).path
    assert_same_weights(taught_run / "explainer.safetensors", again / "explainer.safetensors")
    assert rows(again) == rows(taught_run)
    assert not asked


def test_stage_teachers_stops_when_the_maps_are_there_and_the_run_goes_on_later(tmp_path, taught_run):
    run = train.main(arguments(tmp_path, *TEACHERS, "--stage", "teachers")).path
    assert not (run / "explainer.safetensors").exists()
    assert contents(tmp_path / "teachers", run) == contents(taught_run.parent / "teachers", taught_run)
    train.main(["--resume", str(run), "--stage", "all", "--distill.batch_size", "3"])
    assert_same_weights(run / "explainer.safetensors", taught_run / "explainer.safetensors")


def test_a_resumed_run_can_not_be_told_other_teachers(taught_run):
    with pytest.raises(ValueError, match="keeps its distill"):
        train.main(["--resume", str(taught_run), "--distill.teachers", "rise:masks=10", "--epochs", "9"])


def test_two_processes_and_three_jobs_keep_what_one_does(tmp_path, taught_run):
    of_one = contents(taught_run.parent / "teachers", taught_run)
    for name in ("two", "three"):  # the same classifier: two processes would train another one
        shutil.copytree(taught_run.parent / "explananda", tmp_path / name / "explananda")
    two = ("--accelerator", "cpu", "--devices", "2", "--strategy", "ddp")
    answer = start("train.py", *arguments(tmp_path / "two", *TEACHERS, "--stage", "teachers", *two))
    assert answer.returncode == 0, answer.stderr[-3000:]
    of_two = contents(tmp_path / "two" / "teachers", taught_run)
    for part in (3, 1, 2):
        train.main(arguments(tmp_path / "three", *TEACHERS, "--stage", "teachers", "--distill.shard", f"{part}/3"))
    of_three = contents(tmp_path / "three" / "teachers", taught_run)
    for others in (of_two, of_three):
        assert others.keys() == of_one.keys()
        for key, (pixels, _) in of_one.items():
            mine, theirs = (np.frombuffer(values, np.uint8).astype(int) for values in (pixels, others[key][0]))
            assert np.abs(mine - theirs).max() <= 1, key  # batches of another make-up may round otherwise
    for name in ("two", "three"):
        for info in TeacherCache(tmp_path / name / "teachers").info():
            assert info.shards > 1
            rows_of_all = rows_written(tmp_path / name / "teachers" / info.key)
            assert rows_of_all == info.maps + info.failed, "a map was computed twice"


def test_two_processes_learn_from_kept_maps(tmp_path, taught_run):
    shutil.copytree(taught_run.parent / "explananda", tmp_path / "explananda")
    shutil.copytree(taught_run.parent / "teachers", tmp_path / "teachers")
    two = ("--accelerator", "cpu", "--devices", "2", "--strategy", "ddp", "--augment", "true")
    answer = start("train.py", *arguments(tmp_path, *TEACHERS, *two))
    assert answer.returncode == 0, answer.stderr[-3000:]
    losses = [float(line["train/distill"]) for line in rows(tmp_path / "run")]
    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]


def test_two_processes_get_the_teachers_validation_metrics_of_one(tmp_path, taught_run):
    answer = start("tests/validate_run.py", taught_run, "2", tmp_path / "metrics.json")
    assert answer.returncode == 0, answer.stderr[-3000:]
    of_two = json.loads((tmp_path / "metrics.json").read_text())
    of_one, _ = validate(taught_run, 1)
    assert {"val/distill", "val/distill/grad_cam", "agreement/iou/grad_cam"} <= of_one.keys()
    assert of_two == pytest.approx(of_one, rel=1e-4, abs=1e-5)


def test_a_run_killed_while_teachers_are_asked_and_taught_ends_as_an_unbroken_one(taught_run, tmp_path):
    answer = start("tests/killed_runs.py", tmp_path, "taught")
    assert "HIT" + json.dumps(list(killed_runs.TAUGHT_MOMENTS)) in answer.stdout, answer.stderr[-3000:]
    run = train.main(["--resume", str(tmp_path / "run")]).path
    assert_same_weights(run / "explainer.safetensors", taught_run / "explainer.safetensors")
    assert rows(run) == rows(taught_run)
    for info in TeacherCache(tmp_path / "teachers").info():
        assert rows_written(tmp_path / "teachers" / info.key) == info.maps + info.failed, "a kept map was made again"


def test_a_full_disk_is_found_before_anything_is_trained(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    options = parse(arguments(tmp_path, *TEACHERS, "--distill.map_size", "100"))[0]
    with pytest.raises(OSError, match="--distill.cache"):
        train.main(arguments(tmp_path, *TEACHERS, "--distill.map_size", "100"))
    assert not (tmp_path / "run").exists()
    assert bytes_of_maps(options.distill, train.prepared_datamodule(options)) == IMAGES * 3 * 2 * 10_065


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name, hours in (("old", 25), ("new", 1)):
        folder = tmp_path / f".{name}.part"
        folder.mkdir()
        (folder / "shard.safetensors").write_bytes(b"half")
        os.utime(folder, (time.time() - 3600 * hours,) * 2)
    tidy(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".new.part"]


@pytest.mark.parametrize("taught", [True, False])
def test_processes_of_the_classifier_s_training_wait_as_long_as_those_of_the_teachers(tmp_path, monkeypatch, taught):
    patience = []

    def trainer(*arguments, patient=False, **keywords):
        patience.append(patient)
        return make_trainer(*arguments, patient=patient, **keywords)

    monkeypatch.setattr(train_explanandum, "make_trainer", trainer)
    train.main(arguments(tmp_path, "--stage", "explanandum", *(TEACHERS if taught else ())))
    assert patience == [taught]


def rows_written(folder):
    """Maps in the files of a store, whether or not there are several of the same image and class."""
    return sum(len(load_file(file)["maps"]) for file in folder.glob("*.safetensors"))


def test_pure_imitation_learns_from_the_teachers_alone(taught_run, tmp_path):
    cache = ("--distill.cache", taught_run.parent / "teachers")
    run = train.main(arguments(tmp_path, *TEACHERS, *cache, "--objective", "distill")).path
    for line in rows(run):
        assert float(line["val_loss"]) == pytest.approx(float(line["val/distill"]))
        assert float(line["train_loss"]) == pytest.approx(float(line["train/distill"]))
        assert "train/classification" not in line
        assert float(line["val/classification"]) > 0  # judged by the same measures, though not trained on them
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == EPOCHS


def test_a_weight_of_zero_trains_as_without_teachers(small_run, taught_run, tmp_path):
    cache = ("--distill.cache", taught_run.parent / "teachers")
    run = train.main(arguments(tmp_path, *TEACHERS, *cache, "--distill.weight", "0")).path
    assert_same_weights(run / "explainer.safetensors", small_run / "explainer.safetensors")


def test_cache_info_lists_what_is_there_and_stops(taught_run, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(taught_run.parent, "--distill.cache_info"))
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "grad_cam" in printed and "group_cam:groups=4" in printed and "timm:test_resnet" in printed
    assert "MiB" in printed and "maps of" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--distill.teachers", "grad_kam"), "grad_kam"),
        (("--distill.teachers", "explainer"), "can't teach"),
        (("--objective", "distill"), "needs a teacher"),
        (("--stage", "teachers"), "needs a teacher"),
        (("--distill.teachers", "group_cam:groups=-3"), "groups is -3"),
        (("--distill.teachers", "aop:optimiser=rise"), "can't start from a base map"),
        (("--distill.teachers", "group_cam:target_layer=lajer4"), "Unknown target layer"),
        (("--distill.teachers", "pami:second_run=maybe"), "give true or false"),
        (("--distill.teachers", "rise", "--distill.warmup_epochs", "5"), "needs a larger --patience"),
        (("--distill.teachers", "rise", f"rise:masks={options_of('rise')['masks']}"), "twice"),
        (("--distill.teachers", "rise", "--distill.shard", "1/2"), "training needs all maps"),
    ],
)
def test_what_can_not_teach_is_an_error_before_anything_is_trained(tmp_path, options, message):
    with pytest.raises(ValueError) as error:
        train.main(arguments(tmp_path, *options))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists(), "found out too late"


def test_a_teacher_that_fails_is_told_and_counts_nothing(tmp_path, monkeypatch, capsys):
    original = METHODS["grad_cam"].present_class_maps

    def fails_on_the_second_class(self, image, labels):
        if labels[:, 1].any():
            raise RuntimeError("too hard")
        return original(self, image, labels)

    monkeypatch.setattr(METHODS["grad_cam"], "present_class_maps", fails_on_the_second_class)
    run = train.main(arguments(tmp_path, "--distill.teachers", "grad_cam", "--epochs", "1")).path
    assert "grad_cam failed on" in capsys.readouterr().out
    (info,) = TeacherCache(tmp_path / "teachers").info()
    assert info.failed > 0
    assert float(rows(run)[0]["train/distill"]) > 0


def test_where_a_teacher_failed_it_is_asked_again_by_the_stage_and_not_by_a_training(tmp_path, monkeypatch):
    original = METHODS["grad_cam"].present_class_maps

    def fails(self, image, labels):
        if labels[:, 1].any():
            raise ValueError("a fault of the method")
        return original(self, image, labels)

    taught = arguments(tmp_path, "--distill.teachers", "grad_cam", "--epochs", "1", "--limit_train", "8")
    with monkeypatch.context() as broken:
        broken.setattr(METHODS["grad_cam"], "present_class_maps", fails)
        run = train.main([*taught, "--stage", "teachers"]).path
    failed = [info.failed for info in TeacherCache(tmp_path / "teachers").info()]
    train.main([*taught, "--name", "other"])
    assert [info.failed for info in TeacherCache(tmp_path / "teachers").info()] == failed > [0]
    train.main(["--resume", str(run)])
    assert [info.failed for info in TeacherCache(tmp_path / "teachers").info()] < failed


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (BrokenProcessPool("A process in the process pool was terminated"), True),
        (PermissionError(13, "Permission denied"), True),
        (ConnectionResetError(), True),
        (ValueError("not enough memory is no reason"), False),
        (CannotExplain("CUDA is no reason"), False),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_what_is_not_the_image_s_fault_is_never_kept(error, passes):
    assert is_passing(error) == passes


def test_every_image_is_in_one_share():
    wanted = {f"image{index}": [index] for index in range(11)}
    shares = [share(wanted, (job, 3), (rank, 2)) for job in range(3) for rank in range(2)]
    assert sorted(name for part in shares for name in part) == sorted(wanted)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("again", [[((0, 1), (rank, 2)) for rank in range(2)], [((job, 4),) for job in range(4)]])
def test_what_one_shard_has_done_is_missing_in_every_later_share_alike(again):
    wanted = {f"image{index}": [0] for index in range(4000)}
    done = share(wanted, (0, 2))
    left = [len(share(wanted, *parts).keys() - done.keys()) for parts in again]
    assert min(left) > 0.9 * 2000 / len(again)


def test_a_run_of_one_shard_goes_on_with_all_maps(tmp_path, taught_run):
    run = train.main(arguments(tmp_path, *TEACHERS, "--stage", "teachers", "--distill.shard", "1/2")).path
    train.main(["--resume", str(run), "--stage", "all"])
    assert_same_weights(run / "explainer.safetensors", taught_run / "explainer.safetensors")


def test_a_fading_weight_survives_a_stop(tmp_path, taught_run):
    fading = ("--distill.cache", taught_run.parent / "teachers", "--distill.decay", "0.3", "--distill.combine", "score")
    fading += ("--distill.warmup_epochs", "0")
    whole = train.main(arguments(tmp_path / "whole", *TEACHERS, *fading)).path
    part = train.main(arguments(tmp_path / "part", *TEACHERS, *fading, "--epochs", "1")).path
    train.main(["--resume", str(part), "--epochs", str(EPOCHS)])
    assert_same_weights(part / "explainer.safetensors", whole / "explainer.safetensors")
    weights = [float(row["train/distill_weighted"]) / float(row["train/distill"]) for row in rows(whole)]
    steps = [sum(0.3 ** (epoch + step / STEPS) for step in range(STEPS)) / STEPS for epoch in range(EPOCHS)]
    assert weights == pytest.approx(steps, rel=0.1)  # means of a product, and of its factors


def test_memory_that_runs_out_is_an_error_and_nothing_is_kept_of_it(tmp_path, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(METHODS["grad_cam"], "present_class_maps", too_large)
    with pytest.raises(RuntimeError, match="not the image's"):
        train.main(arguments(tmp_path, "--distill.teachers", "grad_cam"))
    assert not any((info.maps or info.failed) for info in TeacherCache(tmp_path / "teachers").info())


def test_a_teacher_that_fails_everywhere_is_an_error(tmp_path, monkeypatch):
    def hard(*_):
        raise ValueError("too hard")

    monkeypatch.setattr(METHODS["grad_cam"], "present_class_maps", hard)
    with pytest.raises(IncompleteError, match="no map of any train image, e.g. ValueError: too hard"):
        train.main(arguments(tmp_path, "--distill.teachers", "grad_cam"))


def test_maps_that_vanish_are_an_error_and_no_silent_zero(taught_run, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "WAITS", ())
    store = TeacherCache(tmp_path).store({"map_size": 8})
    kept = teachers.KeptMaps([store], "equal")
    with pytest.raises(teachers.MissingMapError, match="vanished"):
        kept("image", (0,))
    assert kept("image", ()).maps.shape == (0, 1, 8, 8)


def test_broken_photographs_have_no_maps_and_stop_nothing(tmp_path):
    data = tmp_path / "data"
    lines = ["image,split,labels"]
    for index in range(12):
        save_image(data / f"{index}.png", colour=(20 * index, 255 - 20 * index, 90), size=(32, 32))
        lines.append(f"{index}.png,{'train' if index < 8 else 'val'},{'cat' if index % 2 else 'dog'}")
    (data / "labels.csv").write_text("\n".join(lines))
    (data / "3.png").write_bytes(b"no picture")
    options = ("--dataset", "folder", "--data_root", data, "--on_bad_image", "skip", "--batch_size", "4")
    more = (*options, "--limit_train", "8", "--distill.teachers", "rise:masks=20", "--epochs", "1")
    for name in ("first", "second"):  # the second finds nothing left but what is broken
        train.main([*arguments(tmp_path / "runs", *more), "--name", name])
    (info,) = TeacherCache(tmp_path / "runs" / "teachers").info()
    assert info.images == 11
    # Another photograph under an old name: its map alone is made.
    save_image(data / "5.png", colour=(255, 0, 0), size=(32, 32))
    train.main(["--resume", str(tmp_path / "runs" / "first"), "--stage", "teachers", "--epochs", "2"])
    (info,) = TeacherCache(tmp_path / "runs" / "teachers").info()
    assert (info.images, info.maps + info.failed) == (12, 12)
