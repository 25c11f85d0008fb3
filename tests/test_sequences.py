"""Attributions of tokens: closed forms on functions of words, plain loops, and what the score function is asked.

L tokens, C scores of a sequence.
"""

import numpy as np
import pytest
import torch

from explainer.sequences import TokenPAMI, TokenPAMIWindow, TokenRISE, phrases, words
from explainer.sequences.parts import random_parts, window_parts

SENTENCE = ["this", "is", "not", "a", "good", "film"]
WORTH = {"not": -2.0, "good": 3.0, "film": 0.5}
EVERY = pytest.mark.parametrize("method", [TokenPAMI, TokenPAMIWindow, TokenRISE], ids=lambda method: method.__name__)
MASKING = pytest.mark.parametrize("mask_token", [None, "_"])


def linear(sentences):
    """The sum of the words' worths."""
    return torch.tensor([sum(WORTH.get(word, 0.0) for word in sentence) for sentence in sentences])


def turned(sentences):
    """Good is good unless "not" comes before it."""
    good = [(" ".join(sentence)).split("good")[0] if "good" in sentence else None for sentence in sentences]
    return torch.tensor([0.5 if before is None else float("not" not in before) for before in good])


class Asked:
    """A score function that remembers what it was asked."""

    def __init__(self, score=linear):
        self.score = score
        self.calls = []

    def __call__(self, sentences):
        self.calls.append(sentences)
        return self.score(sentences)

    @property
    def sentences(self):
        return [sentence for call in self.calls for sentence in call]


# Closed forms.


@MASKING
def test_of_a_linear_score_each_word_alone_has_its_own_worth(mask_token):
    found = TokenPAMI(linear, mask_token=mask_token)(SENTENCE)
    assert found.dtype == torch.float32
    assert found.tolist() == [0, 0, -2, 0, 3, 0.5]


@MASKING
def test_of_a_linear_score_a_window_gives_the_mean_over_the_windows_on_a_word(mask_token):
    found = TokenPAMIWindow(linear, sizes=[2], mask_token=mask_token)(SENTENCE)
    assert found.tolist() == [0, -1, -2, 0.5, 3.25, 2]  # "film" has the windows [good film] and [film]


@MASKING
def test_of_a_linear_score_rise_tends_to_a_words_worth_and_half_of_all_the_others(mask_token):
    found = TokenRISE(linear, masks=20000, mask_token=mask_token)(SENTENCE)
    worth = torch.tensor([WORTH.get(word, 0.0) for word in SENTENCE])
    torch.testing.assert_close(found, worth + (worth.sum() - worth) / 2, rtol=0, atol=0.1)


@EVERY
def test_a_linear_score_puts_words_in_the_order_of_their_worth(method):
    found = method(linear)(["good", "_", "not", "_", "film"])
    assert found.argsort(descending=True)[[0, -1]].tolist() == [0, 2]
    assert found[0] > found[4] > found[2]


@EVERY
def test_a_constant_score_is_every_words_contribution(method):
    found = method(lambda sentences: [0.25] * len(sentences))(SENTENCE)
    torch.testing.assert_close(found, torch.full((6,), 0.25))


def test_a_negation_is_seen_by_windows_but_not_by_single_words():
    sentence = ["not", "good"]
    assert TokenPAMI(turned)(sentence).tolist() == [0.5, 1]
    assert TokenPAMIWindow(turned, sizes=[2])(sentence).tolist() == [0.25, 0.5]  # [not] [not good] [good]


# What the score function is asked.


def test_deletion_closes_the_gap_and_a_mask_token_keeps_the_place():
    deleted, masked = Asked(), Asked()
    TokenPAMIWindow(deleted, sizes=[2])(["a", "b", "c"])
    TokenPAMIWindow(masked, sizes=[2], mask_token="_")(["a", "b", "c"])
    assert deleted.sentences == [["a"], ["a", "b"], ["b", "c"], ["c"]]
    assert masked.sentences == [["a", "_", "_"], ["a", "b", "_"], ["_", "b", "c"], ["_", "_", "c"]]


def test_windows_go_from_left_to_right_and_those_that_keep_the_same_words_are_asked_about_once():
    asked = Asked()
    TokenPAMIWindow(asked, sizes=[1, 3])(["a", "b", "c"])
    assert asked.sentences == [["a"], ["b"], ["c"], ["a", "b"], ["a", "b", "c"], ["b", "c"]]
    asked = Asked()
    TokenPAMIWindow(asked, sizes=[1, 3])(["a", "b"])  # windows longer than the text keep all of it
    assert asked.sentences == [["a"], ["b"], ["a", "b"]]


@pytest.mark.parametrize("sizes", [(1,), (2,), (7,), (1, 2, 3), range(1, 60)])
def test_every_size_of_windows_has_one_vote_on_each_token(sizes):
    for length in (1, 2, 5):
        parts, times = window_parts(length, sizes)
        torch.testing.assert_close(times @ parts[0:999].float(), torch.full((length,), float(len(sizes))))


@EVERY
@MASKING
@pytest.mark.parametrize("chunk_size", [1, 4, 1000])
def test_no_call_has_more_sequences_than_the_limit_and_the_limit_changes_nothing(method, mask_token, chunk_size):
    asked = Asked(turned)
    found = method(asked, mask_token=mask_token, chunk_size=chunk_size)(SENTENCE)
    assert max(len(call) for call in asked.calls) <= chunk_size
    torch.testing.assert_close(found, method(turned, mask_token=mask_token)(SENTENCE))


@EVERY
def test_no_sequence_is_empty_and_gradients_are_off(method):
    def score(sentences):
        assert all(sentences)
        assert not torch.is_grad_enabled()
        return linear(sentences)

    method(score)(["a", "b", "c"])


@EVERY
def test_the_text_itself_stays_as_it_is_and_tokens_may_be_numbers(method):
    tokens = [7, 0, 3]
    found = method(lambda rows: torch.tensor([float(0 in row) for row in rows]), mask_token=-1)(tokens)
    assert tokens == [7, 0, 3]
    assert found.argmax() == 1


# Plain loops.


def plain(score, tokens, masks, weights, mask_token):
    """The mean score of the masks that keep a word, one sequence at a time."""
    total, count = [0.0] * len(tokens), [0.0] * len(tokens)
    for mask, weight in zip(masks, weights, strict=True):
        kept = [token if keep else mask_token for token, keep in zip(tokens, mask, strict=True)]
        value = float(score([[token for token in kept if token is not None]])[0])
        for position, keep in enumerate(mask):
            total[position] += weight * value * keep
            count[position] += weight * keep
    return torch.tensor([one / other for one, other in zip(total, count, strict=True)])


@MASKING
def test_windows_of_several_sizes_are_the_mean_over_sizes_of_what_a_loop_gives(mask_token):
    maps = []
    for size in (1, 2, 4):
        masks = [[start <= place < start + size for place in range(6)] for start in range(1 - size, 6)]
        maps.append(plain(turned, SENTENCE, masks, [1] * len(masks), mask_token))
    found = TokenPAMIWindow(turned, sizes=(1, 2, 4), mask_token=mask_token)(SENTENCE)
    torch.testing.assert_close(found, torch.stack(maps).mean(dim=0))


@MASKING
def test_several_segmentations_are_the_mean_of_what_a_loop_over_their_segments_gives(mask_token):
    maps = []
    for labels in ([0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, 2]):
        masks = [[label == segment for label in labels] for segment in set(labels)]
        maps.append(plain(turned, SENTENCE, masks, [1] * len(masks), mask_token))
    method = TokenPAMI(turned, (words, lambda tokens: [0, 0, 1, 1, 1, 2]), mask_token)
    torch.testing.assert_close(method(SENTENCE), torch.stack(maps).mean(dim=0))


@MASKING
@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_rise_is_what_a_loop_over_all_its_masks_gives(mask_token, probability):
    generator = torch.Generator().manual_seed(5)
    drawn = torch.rand(80, 6, generator=generator) < probability
    masks = [mask for mask in drawn.tolist() if any(mask)]
    expected = plain(turned, SENTENCE, masks, [1] * len(masks), mask_token)
    found = TokenRISE(turned, 80, probability, seed=5, mask_token=mask_token)(SENTENCE)
    torch.testing.assert_close(found, expected)


# The contract.


@EVERY
def test_the_scores_of_several_classes_come_from_the_same_calls(method):
    asked = Asked(lambda sentences: torch.stack([linear(sentences), turned(sentences)], dim=1))
    found = method(asked)(SENTENCE)
    assert found.shape == (2, 6)
    calls = len(asked.calls)
    torch.testing.assert_close(found, torch.stack([method(linear)(SENTENCE), method(turned)(SENTENCE)]))
    single = Asked()
    method(single)(SENTENCE)
    assert len(single.calls) == calls


@EVERY
def test_lists_and_arrays_are_scores_too(method):
    expected = method(linear)(SENTENCE)
    assert torch.equal(method(lambda sentences: linear(sentences).tolist())(SENTENCE), expected)
    assert torch.equal(method(lambda sentences: linear(sentences).double().numpy())(SENTENCE), expected)


@EVERY
def test_a_single_word_has_the_score_of_the_text(method):
    assert method(linear)(["good"]).tolist() == [3]


def test_random_masks_repeat_with_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    long = [str(number) for number in range(30)]
    score = Asked(lambda sentences: [len(" ".join(sentence)) for sentence in sentences])
    found = [TokenRISE(score, masks=50, seed=seed)(long) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_that_are_drawn_twice_are_asked_about_once():
    asked = Asked()
    TokenRISE(asked, masks=1000)(["a", "b", "c"])
    assert len(asked.sentences) == len({tuple(sentence) for sentence in asked.sentences}) == 2**3 - 1
    parts, times = random_parts(3, 1000, 0.5, seed=0)
    assert 800 < int(times.sum()) < 950  # an eighth keeps nothing


def test_phrases_start_at_conjunctions_and_end_with_punctuation():
    text = [*("the", "soup", "was", "cold", ","), *("but", "we", "liked", "the", "cake"), *("and", "the", "tea", ".")]
    assert phrases(text) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert phrases(["But", "why", "?"]) == [0, 0, 0]
    assert words(text) == list(range(14))


# Mistakes.


@EVERY
@pytest.mark.parametrize("text", ["a good film", [], ""])
def test_a_text_that_is_no_list_of_tokens_is_refused(method, text):
    with pytest.raises(ValueError, match=r"give a list of at least one, e\.g\. text\.split\(\)"):
        method(linear)(text)


@EVERY
@pytest.mark.parametrize("score", [lambda s: 1.0, lambda s: torch.ones(len(s) + 1), lambda s: torch.ones(len(s), 2, 2)])
def test_scores_of_another_shape_are_refused(method, score):
    with pytest.raises(ValueError, match=r"gave numbers of shape \[.*\] for \d+ sequences; it must give \["):
        method(score)(SENTENCE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenPAMI(linear, ()), r"segmentations is \(\); give a list of at least one"),
        (lambda: TokenPAMI(linear, words), "segmentations is <function words.*; give a list of at least one"),
        (lambda: TokenPAMIWindow(linear, ()), r"sizes is \(\); give a list of at least one"),
        (lambda: TokenPAMIWindow(linear, 2), "sizes is 2; give a list of at least one"),
        (lambda: TokenPAMIWindow(linear, (0,)), "sizes is 0; give a whole number, at least 1"),
        (lambda: TokenRISE(linear, masks=0), "masks is 0; give a whole number"),
        (lambda: TokenRISE(linear, probability=1.5), "probability is 1.5; give a number above 0, at most 1"),
        (lambda: TokenRISE(linear, seed=-1), "seed is -1; give a whole number, at least 0"),
        (lambda: TokenRISE(linear, chunk_size=0), "chunk_size is 0; give a whole number"),
    ],
)
def test_wrong_options_are_refused_when_the_method_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "numbered",
    [
        torch.tensor,
        np.array,
        lambda labels: [10**12 * label for label in labels],
        lambda labels: [7**99] * 2 + labels[2:],
    ],
)
def test_segments_may_have_any_whole_numbers(numbered):
    labels = [1, 1, 0, 0, 3, 3]
    expected = TokenPAMI(linear, (lambda tokens: labels,))(SENTENCE)
    assert torch.equal(TokenPAMI(linear, (lambda tokens: numbered(labels),))(SENTENCE), expected)


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 0, 0, 0, -1], [0.5] * 6, torch.full((6,), 0.5), ["a"] * 6])
def test_a_segmentation_must_give_each_token_a_number(labels):
    with pytest.raises(ValueError, match="A segmentation gave .* for 6 tokens"):
        TokenPAMI(linear, (lambda tokens: labels,))(SENTENCE)


def test_a_word_that_no_random_mask_keeps_is_an_error_not_a_zero():
    with pytest.raises(ValueError, match="Of 6 tokens some are in none of 2 random masks.*raise masks"):
        TokenRISE(linear, masks=2, probability=0.1)(SENTENCE)
