"""Teacher maps are computed once: no kill, no other writer and no damaged file loses or falsifies a kept one."""

import multiprocessing
import os
import pickle
import resource
import signal
import time

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from explainer import files
from explainer.distillation import shards
from explainer.distillation.cache import TeacherCache, TeacherMap
from explainer.distillation.stage import compact
from explainer.keys import digest

SIDE = 4
ABOUT = {"teacher": "toy", "options": {"blur": 3, "levels": [1, 2]}, "map_size": SIDE}
IMAGES = {"a": [0, 3], "b": [1], "ü": [2, 70, 5]}


def single(image_id, target, failed="", shift=0):
    """What is kept of an image and class: values that no other image or class has."""
    seed = int(digest(image_id, target, shift)[:12], 16)
    values = torch.randint(0, 256, (SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return TeacherMap(values.to(torch.uint8), (seed % 1000) / 999, failed)


def entries_of(images):
    return {image_id: {target: single(image_id, target) for target in classes} for image_id, classes in images.items()}


def check(store, images=IMAGES):
    """Whatever is read is right; returns the pairs that are there."""
    there = set()
    for image_id, classes in images.items():
        for target, kept in store.read(image_id).items():
            expected = single(image_id, target)
            assert target in classes
            assert kept.map.equal(expected.map)
            assert (kept.score, kept.failed) == (expected.score, "")
            there.add((image_id, target))
    return there


def pairs_of(images):
    return {(image_id, target) for image_id, classes in images.items() for target in classes}


@pytest.fixture
def store(tmp_path):
    return TeacherCache(tmp_path).store(ABOUT)


def again(store):
    """The store as another process finds it."""
    return TeacherCache(store.folder.parent).store(ABOUT)


def shard_files(store):
    return sorted(store.folder.glob("*.safetensors"))


def in_fork(task, *values):
    """Run a function in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=task, args=values)
    process.start()
    return process


# What is kept, and under which name


def test_what_was_added_is_read_bit_by_bit_here_and_in_another_process(store):
    store.add(entries_of(IMAGES))
    assert check(store) == check(again(store)) == pairs_of(IMAGES)
    assert store.read("never added") == {}
    assert len(shard_files(store)) == 1


def test_a_saliency_map_comes_back_within_half_a_grey_level(store):
    saliency = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    saliency[0, 0, :2] = torch.tensor([0.0, 1.0])
    kept = compact({(0, target): value for target, value in enumerate(saliency)}, True, SIDE)
    store.add({"a": {target: TeacherMap(value, 0.5) for target, value in enumerate(kept)}})
    found = torch.stack([again(store).read("a")[target].map for target in range(3)]) / 255
    assert (found - saliency).abs().max() <= 1 / 510 + 1e-6
    assert found[0, 0, :2].tolist() == [0, 1]


@pytest.mark.parametrize(
    "other", [{"teacher": "other"}, {"options": {"blur": 4, "levels": [1, 2]}}, {"map_size": 5}, {"new": None}]
)
def test_the_key_changes_with_every_field(store, other):
    assert TeacherCache(store.folder.parent).store(ABOUT | other).key != store.key


def test_the_key_changes_with_the_order_of_a_list_but_not_with_that_of_fields(store):
    cache = TeacherCache(store.folder.parent)
    turned = dict(reversed(ABOUT.items())) | {"options": {"levels": (1, 2), "blur": 3}}
    assert cache.store(turned).key == store.key == digest(ABOUT)
    assert cache.store(ABOUT | {"options": {"levels": [2, 1], "blur": 3}}).key != store.key


def test_another_photograph_of_the_same_name_is_another_image(tmp_path):
    first, second = (TeacherCache(tmp_path).store(ABOUT, {"a": version}) for version in ("1", "2"))
    first.add({"a": {0: single("a", 0)}, "b": {0: single("b", 0, "failed")}})
    second.refresh()
    wanted = {"a": [0], "b": [0]}
    assert second.key == first.key
    assert second.missing(wanted) == {"a": [0]}
    assert second.read("a") == {}
    assert second.read("b")[0].failed
    assert first.missing(wanted) == {}
    assert first.read("a")[0].map.equal(single("a", 0).map)
    assert first.failures(wanted) == ["failed"]


@pytest.mark.parametrize("size", [None, 0, -1, 2.0, True, "4"])
def test_a_store_must_know_the_size_of_its_maps(tmp_path, size):
    with pytest.raises(ValueError, match="map_size"):
        TeacherCache(tmp_path).store(ABOUT | {"map_size": size})


def test_a_map_of_another_size_or_type_is_refused_with_all_that_came_with_it(store):
    for wrong in (torch.zeros(SIDE, SIDE + 1, dtype=torch.uint8), torch.zeros(SIDE, SIDE)):
        with pytest.raises(ValueError, match=r"image b, class 1 .* keeps torch\.uint8 \(4, 4\)"):
            store.add(entries_of(IMAGES) | {"b": {1: TeacherMap(wrong, 0.5)}})
    assert shard_files(store) == []


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.1])
def test_a_score_that_is_no_probability_is_refused(store, score):
    with pytest.raises(ValueError, match="not a probability"):
        store.add({"a": {0: TeacherMap(single("a", 0).map, score)}})


# What is missing


def test_only_what_is_not_there_is_missing_and_images_without_classes_never_are(store):
    store.add(entries_of({"a": [0, 3], "b": [1]}))
    wanted = {"c": [7, 6], "a": [4, 3, 4], "b": [1], "empty": []}
    assert store.missing(wanted) == {"c": [7, 6], "a": [4]}
    assert store.missing({}) == {}


def test_classes_of_an_image_may_come_in_several_shards(store):
    for target in IMAGES["ü"]:
        store.add(entries_of({"ü": [target]}))
    assert check(store, {"ü": IMAGES["ü"]}) == check(again(store)) == pairs_of({"ü": IMAGES["ü"]})


def test_nothing_to_keep_makes_no_file(store):
    store.add({})
    store.add({"a": {}})
    assert shard_files(store) == []


def test_a_failure_is_not_missing_and_says_why_until_a_map_comes(store):
    store.add({"a": {0: single("a", 0, failed="OutOfMemoryError: too\nlarge"), 3: single("a", 3)}})
    for found in (store, again(store)):
        assert found.missing({"a": [0, 3]}) == {}
        assert {target: kept.failed for target, kept in found.read("a").items()} == {
            0: "OutOfMemoryError: too\nlarge",
            3: "",
        }
    store.add(entries_of({"a": [0]}))
    store.add({"a": {0: single("a", 0, failed="again")}})
    assert check(store) == check(again(store)) == {("a", 0), ("a", 3)}


# Damage


def damaged_copies(content):
    """Names and contents: cut at many places, and one byte altered at many places, of header, table and maps."""
    header = 8 + int.from_bytes(content[:8], "little")
    for length in {*range(0, len(content), 23), 7, 8, header - 1, header, len(content) - 1}:
        yield f"cut at {length}", content[:length]
    for position in {*range(0, len(content), 5), *range(12), *range(header - 12, header), len(content) - 1}:
        for change in (0x01, 0x80):
            altered = bytearray(content)
            altered[position] ^= change
            yield f"byte {position} changed by {change}", bytes(altered)


def test_a_cut_or_altered_shard_never_raises_never_lies_and_misses_exactly_what_it_lost(store):
    store.add(entries_of(IMAGES))
    (file,) = shard_files(store)
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    losses = set()
    for name, damaged in damaged_copies(content):
        file.write_bytes(damaged)
        for found in (store, again(store)):  # damaged after it was opened, and before
            there = check(found)
            lost = pairs_of(IMAGES) - there
            assert pairs_of(found.missing(IMAGES)) == lost, name
            losses.add(len(lost))
        if name.startswith("cut") or damaged[:header] != content[:header]:
            assert not there, name  # a reader who comes later trusts nothing of it
        else:
            assert len(lost) == 1, name  # but a damaged map takes no other along
    assert {0, 1, len(pairs_of(IMAGES))} <= losses
    file.write_bytes(content)
    assert check(store) == pairs_of(IMAGES)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_what_was_lost_is_whole_again_once_it_is_added_again(store, keep):
    store.add(entries_of(IMAGES))
    (file,) = shard_files(store)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    found = again(store)
    assert found.missing(IMAGES) == IMAGES
    found.add(entries_of(found.missing(IMAGES)))
    assert check(found) == check(again(store)) == check(store.refresh() or store) == pairs_of(IMAGES)
    assert store.missing(IMAGES) == {}


@pytest.mark.parametrize("first", [True, False])
def test_of_two_shards_with_the_same_map_the_whole_one_counts(store, first):
    store.add(entries_of(IMAGES))
    store.add(entries_of(IMAGES))
    damaged = shard_files(store)[0 if first else 1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert check(store) == check(again(store)) == pairs_of(IMAGES)
    assert store.missing(IMAGES) == {}


def test_a_map_in_the_place_of_another_is_not_taken_for_it(store):
    store.add(entries_of(IMAGES))
    (file,) = shard_files(store)
    content, size = file.read_bytes(), SIDE * SIDE
    file.write_bytes(content[: -2 * size] + content[-size:] + content[-2 * size : -size])
    assert pairs_of(IMAGES) - check(store) == {("ü", 70), ("ü", 5)}


def test_files_that_are_no_shards_of_this_store_hold_nothing(store):
    other = TeacherCache(store.folder.parent).store(ABOUT | {"teacher": "other"})
    other.add(entries_of(IMAGES))
    (moved,) = shard_files(other)
    moved.rename(store.folder / moved.name)
    save_file({"maps": torch.zeros(6, SIDE, SIDE, dtype=torch.uint8)}, store.folder / "weights.safetensors")
    save_file({"other": torch.zeros(3)}, store.folder / "other.safetensors", {"table": "{}", "checksum": ""})
    (store.folder / "folder.safetensors").mkdir()
    (store.folder / "empty.safetensors").touch()
    (store.folder / "notes.txt").write_text("mine")
    found = again(store)
    assert found.missing(IMAGES) == IMAGES
    assert (found.info().damaged, found.info().maps) == (5, 0)


def test_a_shard_that_is_removed_is_missing(store):
    store.add(entries_of(IMAGES))
    shard_files(store)[0].unlink()
    assert check(store) == set()
    assert store.missing(IMAGES) == IMAGES
    assert store.info().shards == 0


# Kills, full disks, several at once


def die(*_, **__):
    """What `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_half_a_file(descriptor):
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()


def add_and_die(store, moment):
    """Add one image, and die while the second is added."""
    store.add(entries_of({"a": IMAGES["a"]}))
    if moment == "half":
        files.os.fsync = die_with_half_a_file
    elif moment == "whole":
        files.os.fsync = die
    elif moment == "before the name":
        files.Path.replace = die
    elif moment == "after the name":
        files.shutil.rmtree = die
    store.add(entries_of({"b": IMAGES["b"]}))


@pytest.mark.parametrize("moment", ["half", "whole", "before the name", "after the name"])
def test_a_kill_loses_only_what_was_being_written(store, moment):
    process = in_fork(add_and_die, store, moment)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store.refresh()
    kept = IMAGES if moment == "after the name" else {"a": IMAGES["a"]}
    assert check(store) == pairs_of(kept) - pairs_of({"ü": IMAGES["ü"]})
    info = store.info()
    assert (info.damaged, info.shards) == (0, 2 if moment == "after the name" else 1)
    store.add(entries_of(store.missing(IMAGES)))
    assert check(again(store)) == pairs_of(IMAGES)


def add_for_ever(store):
    for number in range(10**6):
        store.add(entries_of({str(number): [0, 1]}))


def test_a_writer_killed_at_any_time_leaves_whole_shards_only(store):
    for pause in (0.03, 0.05, 0.08):
        process = in_fork(add_for_ever, again(store))
        before = len(shard_files(store))
        while len(shard_files(store)) < before + 3:
            assert process.is_alive()
        time.sleep(pause)
        process.kill()
        process.join(60)
    numbers = {str(number): [0, 1] for number in range(len(shard_files(store)))}
    found = again(store)
    assert found.info().damaged == 0
    assert {("0", 0), ("0", 1), ("1", 0), ("1", 1), ("2", 0), ("2", 1)} <= check(found, numbers)


def add_some(store, names):
    for name in names:
        store.add(entries_of({name: [0, 1]}))


def test_processes_that_write_the_same_and_other_images_at_once_lose_nothing(store):
    everything = {str(number): [0, 1] for number in range(30)}
    names = list(everything)
    processes = [in_fork(add_some, again(store), names[start : start + 20]) for start in (0, 5, 10)]
    while any(process.is_alive() for process in processes):
        store.refresh()
        check(store, everything)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store.refresh()
    assert check(store, everything) == pairs_of(everything)
    assert store.missing(everything) == {}
    info = store.info()
    assert (info.shards, info.maps, info.images, info.damaged) == (60, 60, 30, 0)


def make_stores(folder):
    for number in range(20):
        TeacherCache(folder).store(ABOUT | {"number": number})


def test_processes_may_make_the_same_stores_at_once(tmp_path):
    processes = [in_fork(make_stores, tmp_path) for _ in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    infos = TeacherCache(tmp_path).info()
    assert sorted(info.about["number"] for info in infos) == list(range(20))
    assert not list(tmp_path.rglob("*.part"))


def test_refresh_sees_what_others_wrote_and_opens_only_that(store, monkeypatch):
    other, opened, original = again(store), [], shards.Shard.open
    store.add(entries_of({"a": IMAGES["a"]}))
    assert check(other) == set()
    monkeypatch.setattr(shards.Shard, "open", lambda file, *rest: opened.append(file) or original(file, *rest))
    other.refresh()
    assert check(other) == pairs_of({"a": IMAGES["a"]})
    other.add(entries_of({"b": IMAGES["b"]}))
    other.refresh()
    assert sorted(opened) == shard_files(store)


def test_a_full_disk_is_an_error_with_a_remedy_and_leaves_no_rubbish(store):
    store.add(entries_of({"a": IMAGES["a"]}))
    before = sorted(store.folder.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Free some space, or name another folder with --distill\.cache"):
            store.add(entries_of({"b": IMAGES["b"]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(store.folder.iterdir()) == before
    assert store.missing(IMAGES) == {"b": IMAGES["b"], "ü": IMAGES["ü"]}
    store.add(entries_of(store.missing(IMAGES)))
    assert check(store) == pairs_of(IMAGES)


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"--distill\.cache"):
        TeacherCache(tmp_path / "file").store(ABOUT)


# Reading in training


class Maps(Dataset):
    """The score and sum of each image's maps, read where the worker is."""

    def __init__(self, store):
        self.store = store
        self.names = list(IMAGES)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        entry = self.store.read(self.names[index])
        return [(target, kept.score, int(kept.map.sum())) for target, kept in entry.items()]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_read_a_store_handed_to_them(store, start):
    store.add(entries_of(IMAGES))
    dataset = Maps(store)
    expected = [dataset[index] for index in range(len(dataset))]
    assert [len(values) for values in expected] == [2, 1, 3]
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=start, collate_fn=list)
    assert [[tuple(value) for value in values] for values in loader] == expected


def test_a_store_holds_no_file_open(store):
    store.add(entries_of(IMAGES))
    check(pickle.loads(pickle.dumps(store)))
    open_files = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    assert not [name for name in open_files if name.startswith(str(store.folder))]


# What is there


def test_info_counts_what_is_whole_and_leaves_out_what_is_no_store(tmp_path):
    cache = TeacherCache(tmp_path)
    assert cache.info() == TeacherCache(tmp_path / "not there").info() == []
    stores = [cache.store(ABOUT | {"number": number}) for number in range(3)]
    first, second, _ = stores
    first.add(entries_of(IMAGES) | {"c": {0: single("c", 0, failed="why"), 1: single("c", 1)}})
    first.add(entries_of({"a": IMAGES["a"]}))
    second.add(entries_of(IMAGES))
    second.add(entries_of({"d": [0, 1]}))
    (half,) = (file for file in shard_files(second) if file.stat().st_size == min(map(size_of, shard_files(second))))
    half.write_bytes(half.read_bytes()[:-1] + b"!")
    (first.folder / ".killed.part").write_bytes(b"half")
    for name, text in (("foreign", "{}"), ("x" * 24, '{"map_size": 4}'), ("broken", "{"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text(text)
    (tmp_path / "plain file").touch()

    infos = cache.info()
    assert [info.key for info in infos] == sorted(store.key for store in stores)
    found = {info.about["number"]: info for info in infos}
    counts = {
        number: (info.images, info.maps, info.failed, info.shards, info.damaged) for number, info in found.items()
    }
    assert counts == {0: (4, 7, 1, 2, 0), 1: (4, 7, 0, 2, 1), 2: (0, 0, 0, 0, 0)}
    assert found[0].about == ABOUT | {"number": 0}
    assert found[0].bytes == sum(map(size_of, shard_files(first)))


def size_of(file):
    return file.stat().st_size


def test_a_damaged_description_is_written_again(store):
    (store.folder / "about.json").write_text("{")
    store.add(entries_of(IMAGES))
    cache = TeacherCache(store.folder.parent)
    assert cache.info() == []
    cache.store(ABOUT)
    assert [info.maps for info in cache.info()] == [6]


def test_a_store_that_is_only_read_writes_nothing(store):
    store.add(entries_of(IMAGES))
    times = {file: file.stat().st_mtime_ns for file in (store.folder, *store.folder.iterdir())}
    found = again(store)
    check(found)
    found.missing(IMAGES)
    found.info()
    assert {file: file.stat().st_mtime_ns for file in (store.folder, *store.folder.iterdir())} == times


def test_no_file_that_is_being_written_is_taken_for_a_shard(store):
    store.add(entries_of({"a": [0, 3]}))
    (kept,) = store.folder.glob("*.safetensors")
    with files.whole(store.folder / "other.safetensors") as beside:
        beside.write_bytes(kept.read_bytes())
        found = again(store).info()
    assert (found.shards, found.damaged) == (1, 0)
    assert again(store).info().shards == 2  # whole now
