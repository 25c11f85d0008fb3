"""A batch as tables see it: what is known of an image goes with it, and its keys tell every difference."""

import pytest
import torch
from toy_models import SIZE, SmallNet, freeze

from datamodules.batch import VOID, Batch, Box
from explainer.evaluation.images import Images
from explainer.keys import digest, digest_of_network, digest_of_tensor

CACHED = ("logits", "predicted", "pixel_keys", "content_keys", "has_mask")


def make_batch(count=4, **changes):
    """Images with all that a batch can have; the mask of the last is void."""
    random = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (count, SIZE, SIZE), generator=random, dtype=torch.uint8)
    mask[-1] = VOID
    fields = {
        "image": torch.rand(count, 3, SIZE, SIZE, generator=random),
        "labels": torch.eye(3)[torch.arange(count) % 3],
        "image_id": tuple(f"image{index}" for index in range(count)),
        "mask": mask,
        "cue_mask": torch.rand(count, SIZE, SIZE, generator=random) > 0.5,
        "skipped": ("broken",),
        "boxes": tuple((Box(index % 3, 0.1, 0.1, 0.5, 0.5),) for index in range(count)),
        "original_size": tuple((100 + index, 200) for index in range(count)),
    }
    return Batch(**(fields | changes))


@pytest.fixture(scope="module")
def explanandum():
    return freeze(SmallNet())


def values(images):
    """All that is computed of images."""
    return {name: getattr(images, name) for name in CACHED}


@pytest.mark.parametrize("chosen", [[2], [3, 1], [0, 1, 2, 3], []])
@pytest.mark.parametrize("asked_before", [True, False])
def test_what_is_known_of_an_image_stays_with_it_in_a_subset(explanandum, chosen, asked_before):
    images = Images(make_batch(), explanandum)
    whole = values(Images(make_batch(), explanandum))
    if asked_before:
        values(images)
    part = images.subset(chosen)
    assert part.names == tuple(f"image{index}" for index in chosen)
    assert part.image.equal(images.image[chosen])
    assert part.labels.equal(images.labels[chosen])
    for name, found in values(part).items():
        if isinstance(found, torch.Tensor):
            torch.testing.assert_close(found, whole[name][chosen])
        else:
            assert found == [whole[name][index] for index in chosen]
    for name in ("mask", "cue_mask"):
        assert getattr(part.batch, name).equal(getattr(images.batch, name)[chosen])
    assert [size[0] - 100 for size in part.batch.original_size] == chosen
    assert part.batch.boxes == tuple(images.batch.boxes[index] for index in chosen)


def test_a_subset_asks_the_classifier_only_what_it_has_not_said_yet():
    calls = []

    class Counted(SmallNet):
        def forward(self, image):
            calls.append(len(image))
            return super().forward(image)

    images = Images(make_batch(), freeze(Counted()))
    assert images.predicted.shape == (4,)
    assert images.subset([1, 3]).logits.shape == (2, 3)
    assert calls == [4]


def test_a_subset_does_not_skip_images_again(explanandum):
    assert Images(make_batch(), explanandum).subset([0]).batch.skipped == ()


def test_a_batch_without_masks_boxes_and_cues_has_none_in_a_subset_either(explanandum):
    bare = make_batch(mask=None, cue_mask=None, boxes=None, original_size=None)
    part = Images(bare, explanandum).subset([1, 2])
    assert (part.batch.mask, part.batch.cue_mask, part.batch.boxes, part.batch.original_size) == (None,) * 4
    assert part.has_mask == [False, False]
    assert len(set(part.content_keys)) == 2


def test_a_mask_that_is_void_everywhere_is_none(explanandum):
    assert Images(make_batch(), explanandum).has_mask == [True, True, True, False]


def changed(field):
    """The batch with another value of the second image."""
    batch = make_batch()
    if field in ("image", "labels", "mask", "cue_mask"):
        tensor = getattr(batch, field).clone()
        tensor[1].view(-1)[0] = not tensor[1].view(-1)[0]
        return batch._replace(**{field: tensor})
    others = {"boxes": (Box(1, 0.1, 0.1, 0.5, 0.51),), "original_size": (101, 201)}
    before = getattr(batch, field)
    return batch._replace(**{field: (before[0], others[field], *before[2:])})


@pytest.mark.parametrize("field", ["image", "labels", "mask", "cue_mask", "boxes", "original_size"])
def test_whatever_changes_of_an_image_changes_its_content_key_and_no_other_image_s(explanandum, field):
    before, after = Images(make_batch(), explanandum), Images(changed(field), explanandum)
    pairs = zip(before.content_keys, after.content_keys, strict=True)
    assert [key == other for key, other in pairs] == [True, False, True, True]
    # A map depends on pixels alone: other labels must not make it be computed again.
    assert (before.pixel_keys == after.pixel_keys) == (field != "image")


@pytest.mark.parametrize("field", ["mask", "cue_mask", "boxes", "original_size"])
def test_a_content_key_tells_nothing_from_something(explanandum, field):
    without = Images(make_batch(**{field: None}), explanandum).content_keys
    assert not set(without) & set(Images(make_batch(), explanandum).content_keys)


def test_no_boxes_known_is_not_the_same_as_no_box(explanandum):
    unknown = Images(make_batch(boxes=None), explanandum).content_keys
    assert not set(unknown) & set(Images(make_batch(boxes=((),) * 4), explanandum).content_keys)


def test_keys_do_not_depend_on_memory_layout_name_or_company(explanandum):
    batch = make_batch()
    keys = Images(batch, explanandum).content_keys
    layouts = (
        batch.image.contiguous(memory_format=torch.channels_last),
        batch.image.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        torch.cat([batch.image, batch.image])[:4],
    )
    for image in layouts:
        assert Images(batch._replace(image=image), explanandum).content_keys == keys
    assert Images(batch._replace(image_id=tuple("wxyz")), explanandum).content_keys == keys
    alone = [Images(batch, explanandum).subset([index]).content_keys[0] for index in range(4)]
    assert alone == keys


def test_one_hot_marks_one_class_of_each_image(explanandum):
    images = Images(make_batch(), explanandum)
    marked = images.one_hot(torch.tensor([2, 0, 1, 2]))
    assert marked.dtype == torch.bool
    assert marked.nonzero().tolist() == [[0, 2], [1, 0], [2, 1], [3, 2]]


def test_a_digest_is_of_values_in_whatever_order_names_were_given():
    assert digest({"a": 1, "b": (2, None)}) == digest({"b": [2, None], "a": 1})
    different = [digest("a", "b"), digest("ab"), digest(["a", "b"]), digest("a", None), digest("a", "None"), digest()]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.long, torch.float32, torch.bfloat16])
def test_a_tensor_s_digest_tells_its_values(dtype):
    tensor = torch.zeros(2, 3, dtype=dtype)
    other = tensor.clone()
    other[1, 2] = 1
    assert digest_of_tensor(tensor) == digest_of_tensor(tensor.clone())
    assert digest_of_tensor(tensor) == digest_of_tensor(tensor.T.contiguous().T)
    assert digest_of_tensor(tensor) != digest_of_tensor(other)


def test_a_network_s_digest_is_of_all_parameters_and_buffers():
    network = SmallNet()
    before = digest_of_network(network)
    assert digest_of_network(SmallNet().to(memory_format=torch.channels_last)) == before
    network.features[1].running_mean[0] += 1
    after = digest_of_network(network)
    with torch.no_grad():
        network.logits.bias[0] += 1
    assert len({before, after, digest_of_network(network)}) == 3
