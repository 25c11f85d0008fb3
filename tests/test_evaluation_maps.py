"""Maps are asked for once, kept whole or not at all, and no image's failure touches another's map."""

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from test_evaluation_images import make_batch
from toy_models import SIZE, SmallNet, freeze

from explainer.attribution import AttributionMethod
from explainer.evaluation import MapCache, named_method
from explainer.evaluation import maps as maps_module
from explainer.evaluation.images import Images
from explainer.evaluation.maps import MapSource, computed
from explainer.evaluation.methods import NamedMethod

EYE = torch.eye(4, 3).bool()
ALL = torch.ones(4, 3).bool()


def value(image, target):
    """A map [H,W] that image and class decide."""
    return image.mean(dim=0) * (target + 1) - target


class Toy(AttributionMethod):
    """Notes what it is asked for; `spoil` says what becomes of a map, by its image's name and class."""

    def __init__(self, explanandum, images, spoil=None):
        super().__init__(explanandum)
        self.names = {image.sum().item(): name for image, name in zip(images.image, images.names, strict=True)}
        self.spoil = spoil or {}
        self.calls = []

    def __call__(self, image, target):
        names = [self.names[single.sum().item()] for single in image]
        pairs = list(zip(names, target.tolist(), strict=True))
        self.calls.append(pairs)
        return torch.stack([self._map(single, *pair) for single, pair in zip(image, pairs, strict=True)])

    def _map(self, image, name, target):
        spoil = self.spoil.get((name, target), self.spoil.get(name))
        if isinstance(spoil, Exception):
            raise spoil
        return value(image, target) if spoil is None else spoil(value(image, target))


@pytest.fixture(scope="module")
def images():
    return Images(make_batch(), freeze(SmallNet()))


def toy(images, spoil=None, key="toy"):
    """The method as a row."""
    return NamedMethod("toy", Toy(images.explanandum, images, spoil), key)


def source(folder=None):
    return MapSource(MapCache(folder))


def pairs_of(maps):
    return list(zip(maps.image_index.tolist(), maps.target.tolist(), strict=True))


def check(maps, images):
    """Each map is the one of its image and class."""
    for single, (index, target) in zip(maps.maps, pairs_of(maps), strict=True):
        torch.testing.assert_close(single, value(images.image[index], target), rtol=0, atol=0)


def test_maps_come_for_what_is_wanted_sorted_by_image_and_class(images):
    row = toy(images)
    maps, failures = source()(row, images, EYE)
    assert pairs_of(maps) == [(0, 0), (1, 1), (2, 2)]
    assert (failures, maps.unit_range, len(row.method.calls)) == ({}, False, 1)
    check(maps, images)


def test_who_wants_nothing_asks_nothing(images, tmp_path):
    row = toy(images)
    maps, failures = source(tmp_path)(row, images, torch.zeros(4, 3).bool())
    assert maps.maps.shape == (0, SIZE, SIZE)
    assert (len(maps.image_index), len(maps.target), failures, row.method.calls) == (0, 0, {}, [])
    assert maps.merged(4).shape == (4, SIZE, SIZE)
    assert not list(tmp_path.iterdir())


def test_kept_maps_are_the_computed_ones_bit_for_bit(images, tmp_path):
    for text in ("grad_cam", "random"):
        row = named_method(text, images.explanandum, "32-true")
        first, _ = source(tmp_path)(row, images, ALL)
        second, _ = source(tmp_path)(row, images, ALL)
        direct, _ = source()(row, images, ALL)
        assert first.maps.equal(direct.maps)
        assert second.maps.equal(direct.maps)
        assert pairs_of(first) == pairs_of(second) == pairs_of(direct)


def test_only_the_classes_that_are_missing_are_computed(images, tmp_path):
    row, maps_of = toy(images), source(tmp_path)
    maps_of(row, images, EYE)
    maps, _ = maps_of(row, images, ALL)
    names = images.names
    assert row.method.calls[1] == [(names[index], target) for index, target in (~EYE).nonzero().tolist()]
    check(maps, images)
    again, _ = maps_of(row, images, ALL)
    assert len(row.method.calls) == 2
    check(again, images)
    assert pairs_of(maps_of(row, images, EYE)[0]) == [(0, 0), (1, 1), (2, 2)]  # not all that is kept


def test_methods_and_pixels_do_not_get_each_other_s_maps(images, tmp_path):
    maps_of = source(tmp_path)
    maps_of(toy(images), images, ALL)
    other = toy(images, key="other")
    maps_of(other, images, ALL)
    assert len(other.method.calls) == 1
    darker = Images(images.batch._replace(image=images.image * 0.5), images.explanandum)
    row = toy(darker)
    maps, _ = maps_of(row, darker, ALL)
    assert len(row.method.calls) == 1
    check(maps, darker)


def test_maps_of_another_size_are_none_of_an_image_s(images, tmp_path):
    cache = MapCache(tmp_path)
    cache.add("toy", images.pixel_keys[0], {0: torch.zeros(SIZE // 2, SIZE // 2)})
    maps, _ = MapSource(cache)(toy(images), images, EYE)
    check(maps, images)
    assert cache.read("toy", images.pixel_keys[0])[0].shape == (SIZE, SIZE)


# Failures.


def nan(single):
    return single.masked_fill(single == single.max(), float("nan"))


def infinite(single):
    return single.masked_fill(single == single.max(), float("inf"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (RuntimeError("no  such\nlayer"), "RuntimeError: no such layer"),
        (nan, f"1 of {SIZE**2} values of the map of class 1 are NaN or infinite"),
        (infinite, f"1 of {SIZE**2} values of the map of class 1 are NaN or infinite"),
        (lambda single: single[::2], r"ValueError: The maps are (1, 16, 32), the images (1, 3, 32, 32)."),
        (lambda single: single[None], r"ValueError: The maps are (1, 1, 32, 32), the images (1, 3, 32, 32)."),
    ],
)
def test_what_fails_on_one_image_takes_no_other_along_and_says_why(images, tmp_path, spoil, reason):
    row = toy(images, {"image1": spoil})
    maps, failures = source(tmp_path)(row, images, EYE)
    assert failures == {(1, 1): reason}
    assert pairs_of(maps) == [(0, 0), (2, 2)]
    check(maps, images)
    kept = [len(MapCache(tmp_path).read("toy", key)) for key in images.pixel_keys]
    assert kept == [1, 0, 1, 0], "A failure must not be kept as a map."


@pytest.mark.parametrize("spoil", [RuntimeError("one class"), nan])
def test_a_class_that_fails_does_not_take_its_image_s_other_classes_along(images, spoil):
    row = toy(images, {("image1", 2): spoil})
    maps, failures = source()(row, images, ALL)
    assert list(failures) == [(1, 2)]
    assert pairs_of(maps) == [(index, target) for index in range(4) for target in range(3) if (index, target) != (1, 2)]
    check(maps, images)


def test_where_everything_fails_everything_is_told(images):
    maps, failures = source()(toy(images, dict.fromkeys(images.names, ValueError("never"))), images, ALL)
    assert maps.maps.shape == (0, SIZE, SIZE)
    assert failures == {(index, target): "ValueError: never" for index in range(4) for target in range(3)}


def test_what_failed_is_asked_again_next_time(images, tmp_path):
    source(tmp_path)(toy(images, {"image1": nan}), images, EYE)
    row = toy(images)
    maps, failures = source(tmp_path)(row, images, EYE)
    assert row.method.calls == [[("image1", 1)]]
    assert not failures
    check(maps, images)


def test_a_value_too_large_for_float32_is_infinite(images):
    row = toy(images, {"image2": lambda single: single.double() + 1e300})
    row.method.__class__ = type("Doubles", (Toy,), {"_map": lambda self, *what: Toy._map(self, *what).double()})
    maps, failures = source()(row, images, EYE)
    assert list(failures) == [(2, 2)]
    assert maps.maps.dtype == torch.float32


def test_a_method_that_answers_another_question_fails(images):
    class Forgetful(Toy):
        def present_class_maps(self, image, labels):
            maps, image_index, target = super().present_class_maps(image, labels)
            return maps[1:], image_index[1:], target[1:]

    class Shuffled(Toy):
        def present_class_maps(self, image, labels):
            maps, image_index, target = super().present_class_maps(image, labels)
            return maps, image_index, (target + 1) % 3

    for wrong in (Forgetful, Shuffled):
        found, failures = computed(wrong(images.explanandum, images), images, EYE)
        assert not found
        assert set(failures) == {(0, 0), (1, 1), (2, 2)}
        assert all("Asked for 1 maps" in reason for reason in failures.values())


def test_a_keyboard_interrupt_is_no_failure_of_a_method(images):
    class Interrupted(Toy):
        def __call__(self, image, target):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        computed(Interrupted(images.explanandum, images), images, EYE)


# Scaling.


def test_flat_and_negative_maps_are_maps(images):
    row = toy(images, {"image0": lambda single: single * 0 - 3, "image1": lambda single: -single - 5})
    maps, failures = source()(row, images, EYE)
    assert not failures
    assert maps.maps[0].unique().tolist() == [-3]
    flat, negative, _ = maps.scaled
    assert not flat.any()
    assert (negative.min(), negative.max()) == (0, 1)
    assert negative.argmax() == maps.maps[1].argmax()


def test_masks_in_unit_range_are_taken_as_they_are(images):
    row = toy(images, dict.fromkeys(images.names, lambda single: single.clamp(0.2, 0.7)))
    row.method.unit_range = True
    maps, _ = source()(row, images, EYE)
    assert maps.unit_range
    assert maps.scaled is maps.maps
    assert maps.merged(4)[:3].equal(maps.maps)
    assert not maps.merged(4)[3].any()


def test_a_selection_counts_its_images_anew(images):
    maps, _ = source()(toy(images), images, ALL)
    part = maps.select(EYE | (torch.arange(3) == 0), [1, 3])
    assert pairs_of(part) == [(0, 0), (0, 1), (1, 0)]
    check(part, images.subset([1, 3]))


# The cache.


def test_without_a_folder_nothing_is_kept(images):
    cache = MapCache(None)
    cache.add("toy", "key", {0: torch.zeros(2, 2)})
    assert cache.read("toy", "key") == {}


def test_classes_are_added_and_replaced(tmp_path):
    cache = MapCache(tmp_path)
    cache.add("toy", "key", {0: torch.zeros(2, 2), 7: torch.ones(2, 2)})
    cache.add("toy", "key", {7: torch.full((2, 2), 3.0).T, 1: torch.ones(4, 2)[::2]})
    kept = cache.read("toy", "key")
    assert {target: single.unique().tolist() for target, single in kept.items()} == {0: [0], 1: [1], 7: [3]}
    assert [file.name for file in (tmp_path / "toy").iterdir()] == ["key.safetensors"]


@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "words", "other names"])
def test_a_damaged_file_is_computed_anew(images, tmp_path, damage):
    row = toy(images)
    source(tmp_path)(row, images, EYE)
    file = tmp_path / "toy" / f"{images.pixel_keys[1]}.safetensors"
    size = file.stat().st_size
    if damage == "other names":
        save_file({"weight": torch.zeros(SIZE, SIZE)}, file)
    else:
        whole = file.read_bytes()
        file.write_bytes(
            {"empty": b"", "half": whole[: size // 2], "zeros": bytes(size), "words": b"no map " * 99}[damage]
        )
    maps, failures = source(tmp_path)(row, images, EYE)
    assert not failures
    assert row.method.calls[1:] == [[("image1", 1)]]
    check(maps, images)
    source(tmp_path)(row, images, EYE)
    assert len(row.method.calls) == 2, "The damaged file was not replaced."


def in_fork(task, *values):
    """Run a function in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=task, args=values)
    process.start()
    return process


def die_while_writing(folder):
    """Write half of the file, then what `kill -9` does."""
    original = maps_module.save_file

    def save(tensors, file):
        original(tensors, file)
        os.truncate(file, file.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    maps_module.save_file = save
    MapCache(folder).add("toy", "key", {1: torch.ones(8, 8)})


def test_a_process_that_is_killed_while_writing_leaves_the_file_as_it_was(tmp_path):
    cache = MapCache(tmp_path)
    for before in ({}, {0: torch.zeros(8, 8)}):
        cache.add("toy", "key", before) if before else None
        process = in_fork(die_while_writing, tmp_path)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert (tmp_path / "toy" / "key.safetensors").exists() == bool(before)
        assert list(cache.read("toy", "key")) == list(before)
    cache.add("toy", "key", {1: torch.ones(8, 8)})
    assert sorted(cache.read("toy", "key")) == [0, 1]


def test_a_disk_that_is_full_leaves_no_rubbish(tmp_path, monkeypatch):
    def full(tensors, file):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(maps_module, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        MapCache(tmp_path).add("toy", "key", {0: torch.zeros(2, 2)})
    assert not list((tmp_path / "toy").iterdir())


def add_many(folder, first):
    """Add the classes first, first + 2, …; each map holds its class's number."""
    cache = MapCache(folder)
    for target in range(first, 60, 2):
        cache.add("toy", "key", {target: torch.full((16, 16), float(target))})


def test_processes_that_write_the_same_file_at_once_never_leave_a_wrong_map(tmp_path):
    processes = [in_fork(add_many, tmp_path, first) for first in (0, 1)]
    cache, seen = MapCache(tmp_path), []
    while any(process.is_alive() for process in processes):
        seen.append(cache.read("toy", "key"))
    assert [process.exitcode for process in processes] == [0, 0]
    seen.append(cache.read("toy", "key"))
    assert seen[-1]
    for kept in seen:
        for target, single in kept.items():
            assert single.equal(torch.full((16, 16), float(target)))
    assert [file.name for file in (tmp_path / "toy").iterdir()] == ["key.safetensors"]


def test_processes_of_equal_number_on_two_machines_write_beside_each_other(tmp_path, monkeypatch):
    places, original = [], maps_module.save_file
    monkeypatch.setattr(maps_module, "save_file", lambda tensors, file: (places.append(file), original(tensors, file)))
    for _ in range(2):  # this process's number is the same both times
        MapCache(tmp_path).add("toy", "key", {0: torch.zeros(2, 2)})
    assert len(set(places)) == 2
    assert not any(place.parent == tmp_path / "toy" for place in places)  # where maps are looked for


def test_a_row_s_name_does_not_decide_which_maps_are_kept(images, tmp_path):
    source(tmp_path)(toy(images), images, EYE)
    renamed = replace(toy(images), name="the same by another name")
    source(tmp_path)(renamed, images, EYE)
    assert not renamed.method.calls
