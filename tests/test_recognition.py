"""Precision, recall and F-score of the explanandum (NN-Explainer, Table 4), by hand and against torchmetrics.

N images, C classes.
"""

import math

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)
from toy_models import SIZE, WindowNet, freeze

from explainer.masking import apply_mask
from explainer.metrics.recognition import (
    MASKED_THRESHOLD,
    PLAIN_THRESHOLD,
    Recognition,
    per_class_scores,
    recognition_counts,
    scores_from_counts,
)

LOGITS = torch.tensor([[2.0, -0.5, -3.0], [0.5, 0.2, -2.0], [-1.0, -2.0, -1.5], [-0.2, 3.0, -4.0]])
LABELS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])


def counts(tp, fp, fn):
    return {"tp": torch.tensor(tp), "fp": torch.tensor(fp), "fn": torch.tensor(fn)}


def random_case(seed=0, images=40, classes=5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator)
    labels = (torch.rand(images, classes, generator=generator) < 0.3).float()
    return logits, labels


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (PLAIN_THRESHOLD, counts([1, 2, 0], [1, 0, 0], [2, 1, 0])),
        (MASKED_THRESHOLD, counts([3, 3, 0], [1, 0, 0], [0, 0, 0])),  # class 0's -1.0 is just enough
        (2.5, counts([0, 1, 0], [0, 0, 0], [3, 2, 0])),
        (-9.0, counts([3, 3, 0], [1, 1, 4], [0, 0, 0])),
    ],
)
def test_counts_by_hand(threshold, expected):
    found = recognition_counts(LOGITS, LABELS, threshold)
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_a_single_label_classifier_recognises_its_largest_logit_alone():
    labels = torch.eye(3)[[0, 1, 2, 1]]
    for threshold in (PLAIN_THRESHOLD, 99.0):
        found = recognition_counts(LOGITS, labels, threshold, "single_label")
        assert {name: value.tolist() for name, value in found.items()} == {
            "tp": [1, 1, 0],
            "fp": [2, 0, 0],
            "fn": [0, 1, 1],
        }


def test_scores_by_hand():
    """Class 2 neither occurs nor is recognised: it tells nothing and is no part of the macro means."""
    scores = scores_from_counts(**counts([1, 2, 0], [1, 0, 0], [2, 1, 0]))
    expected = {
        "micro_precision": 3 / 4,
        "micro_recall": 3 / 6,
        "micro_f_score": 6 / 10,
        "macro_precision": (1 / 2 + 1) / 2,
        "macro_recall": (1 / 3 + 2 / 3) / 2,
        "macro_f_score": (2 / 5 + 4 / 5) / 2,
    }
    assert {name: value.item() for name, value in scores.items()} == pytest.approx(expected)


def test_a_class_that_is_never_recognised_scores_zero_and_one_that_is_not_there_nothing():
    scores = per_class_scores(**counts([0, 0, 0], [0, 3, 0], [4, 0, 0]))
    for values in scores.values():
        assert values[:2].tolist() == [0, 0]
        assert values[2].isnan()
    assert scores_from_counts(**counts([0, 0], [0, 0], [3, 0]))["macro_f_score"] == 0
    assert all(value.isnan() for value in scores_from_counts(**counts([0, 0], [0, 0], [0, 0])).values())


def test_scores_of_many_counts_at_once_are_those_of_each():
    found = [recognition_counts(*random_case(seed), 0.3) for seed in range(3)]
    together = scores_from_counts(**{name: torch.stack([one[name] for one in found]) for name in found[0]})
    for index, one in enumerate(found):
        for name, value in scores_from_counts(**one).items():
            assert together[name][index] == value


def test_a_perfect_classifier_scores_one():
    scores = scores_from_counts(**recognition_counts(2 * LABELS - 1, LABELS))
    assert all(value == 1 for value in scores.values())


@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_torchmetrics(seed, average):
    logits, labels = random_case(seed)
    labels[:, 3], logits[:, 4] = 0, -5  # class 3 is only recognised, class 4 only there
    scores = scores_from_counts(**recognition_counts(logits, labels, 0.3))
    arguments = ((logits >= 0.3).int(), labels.int(), 5)
    for name, function in [
        ("precision", multilabel_precision),
        ("recall", multilabel_recall),
        ("f_score", multilabel_f1_score),
    ]:
        assert scores[f"{average}_{name}"].item() == pytest.approx(function(*arguments, average=average).item())


def test_single_label_scores_equal_those_of_torchmetrics():
    logits, _ = random_case(5)
    target = torch.arange(40) % 5
    scores = scores_from_counts(**recognition_counts(logits, torch.eye(5)[target], output="single_label"))
    for average in ("micro", "macro"):
        expected = multiclass_f1_score(logits, target, 5, average=average).item()
        assert scores[f"{average}_f_score"].item() == pytest.approx(expected)
    accuracy = (logits.argmax(dim=1) == target).double().mean().item()
    assert scores["micro_precision"].item() == scores["micro_recall"].item() == pytest.approx(accuracy)


def test_table_4s_f_score_is_the_harmonic_mean_of_its_other_columns_as_a_micro_average_is():
    """Of a macro average that would hardly be so."""
    for precision, recall, f_score in [(88.4, 63.9, 74.2), (77.3, 69.6, 73.2), (66.9, 45.0, 53.8), (69.1, 48.9, 57.3)]:
        assert 2 * precision * recall / (precision + recall) == pytest.approx(f_score, abs=0.06)
    scores = scores_from_counts(**counts([5, 1], [1, 7], [2, 0]))
    precision, recall = scores["micro_precision"], scores["micro_recall"]
    assert scores["micro_f_score"].item() == pytest.approx((2 * precision * recall / (precision + recall)).item())


def test_masking_the_objects_away_costs_recall():
    """A classifier of three squares recognises what its mask leaves, dimmed ones only at a lower threshold."""
    net = freeze(WindowNet())
    image, labels = torch.ones(2, 3, SIZE, SIZE), torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    squares = net.model.windows.windows

    def logits(mask):
        return net(apply_mask(image, mask)) - 0.9  # from -0.9, nothing left, to 0.1

    everything = scores_from_counts(**recognition_counts(logits(torch.ones(2, SIZE, SIZE)), labels))
    assert everything["micro_recall"] == 1
    assert everything["micro_precision"].item() == pytest.approx(4 / 6)
    perfect = (labels[:, :, None, None] * squares).amax(dim=1)
    assert scores_from_counts(**recognition_counts(logits(perfect), labels))["micro_f_score"] == 1
    assert scores_from_counts(**recognition_counts(logits(0.5 * perfect), labels))["micro_recall"] == 0
    assert scores_from_counts(**recognition_counts(logits(0.5 * perfect), labels, -0.5))["micro_f_score"] == 1


def test_nan_logits_and_shapes_that_would_broadcast_are_errors():
    logits = LOGITS.clone()
    logits[1, 1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        recognition_counts(logits, LABELS)
    with pytest.raises(ValueError, match="don't match"):
        recognition_counts(LOGITS, LABELS[:1])


@pytest.mark.parametrize("output", ["multi_label", "single_label"])
def test_counts_of_a_batch_are_the_sum_of_its_images(output):
    logits, labels = random_case(2)
    whole = recognition_counts(logits, labels, 0.1, output)
    for name, value in whole.items():
        singles = [recognition_counts(logits[n : n + 1], labels[n : n + 1], 0.1, output)[name] for n in range(40)]
        assert torch.stack(singles).sum(dim=0).equal(value)


def test_states_of_several_processes_add_up():
    logits, labels = random_case(3)
    whole, first, second = (Recognition(5, MASKED_THRESHOLD) for _ in range(3))
    whole.update(logits[:7], labels[:7])
    whole.update(logits[7:], labels[7:])
    first.update(logits[:11], labels[:11])
    second.update(logits[11:], labels[11:])
    first.merge_state(second)
    expected = scores_from_counts(**recognition_counts(logits, labels, MASKED_THRESHOLD))
    assert whole.compute() == first.compute()
    assert whole.compute() == {name: value.item() for name, value in expected.items()} | {"images": 40}
