"""The examples of docs/text_and_captions.md: their data, their models, and that their commands run (shortened here).

H×W pixels of a scene.
"""

import re
import shlex
from pathlib import Path

import caption_example
import caption_model
import numpy as np
import pytest
import text_example
import text_model
import torch
from PIL import Image

from datamodules.shapes_scene import CLASSES

DOCS = Path(__file__).parents[1] / "docs"
PARSERS = {"text_example": text_example.parse_options, "caption_example": caption_example.parse_options}


# The page.


def documented(folder):
    pages = [folder / "text_and_captions.md", folder / "README.md"]
    return {
        found for page in pages for found in re.findall(r"python docs/(\w+_example)\.py([^`\n]*)", page.read_text())
    }


def test_the_documented_commands_exist():
    commands = documented(DOCS)
    assert {name for name, _ in commands} == set(PARSERS)
    for name, arguments in commands:
        PARSERS[name](shlex.split(arguments))
        assert f"python docs/{name}.py" in (DOCS / f"{name}.py").read_text().split('"""')[1]


def test_the_python_example_of_the_page_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "text_and_captions.md").read_text(), flags=re.DOTALL)
    exec(compile(example, "text_and_captions.md", "exec"), {})
    assert capsys.readouterr().out.startswith("the 0.50")


# Text.


@pytest.fixture(scope="module")
def corpus():
    return text_model.read_corpus(DOCS / "reviews.yaml", 300, seed=0)


def test_no_held_out_sentence_is_trained_on_and_none_is_in_the_picture(corpus):
    texts = [{" ".join(words) for words, _ in part} for part in (corpus.train, corpus.filled, corpus.written)]
    assert not texts[0] & (texts[1] | texts[2])
    assert not set(text_example.SENTENCES) & set.union(*texts)
    assert len(corpus.written) >= 60 and len(corpus.filled) > 50


def test_both_verdicts_are_equally_frequent(corpus):
    for part in (corpus.train, corpus.written):
        assert sum(label for _, label in part) / len(part) == pytest.approx(0.5, abs=0.01)


def test_every_gap_of_a_template_is_filled_and_negative_reviews_have_opposite_words():
    source = {
        "templates": ["{good} but {bad} {thing}"],
        "words": {"good": ["fine"], "bad": ["poor"], "thing": ["tea", "cake"]},
    }
    filled = text_model.fill_templates(source, 20, text_model.random.Random(0))
    assert {(tuple(words[:3]), label) for words, label in filled} == {
        (("fine", "but", "poor"), 1),
        (("poor", "but", "fine"), 0),
    }
    assert {words[3] for words, _ in filled} == {"tea", "cake"}


def test_a_sentence_has_the_same_score_in_any_batch(corpus):
    torch.manual_seed(0)
    classifier = text_model.Reviewer(["good", "bad"]).eval()
    sentences = [["good"], ["not", "bad", "at", "all"], ["bad", "good"]]
    together = classifier.positive(sentences)
    alone = torch.cat([classifier.positive([sentence]) for sentence in sentences])
    torch.testing.assert_close(together, alone)


def test_the_text_example_trains_explains_and_draws(tmp_path, capsys):
    threads = torch.get_num_threads()
    arguments = ["--filled", "800", "--epochs", "8", "--masks", "30", "--output", str(tmp_path)]
    file = text_example.main(arguments)
    printed = capsys.readouterr().out
    (accuracy,) = re.findall(r"held-out sentences from templates: ([\d.]+)", printed)
    assert float(accuracy) > 0.7
    assert "held-out sentences written one by one" in printed
    assert len(re.findall(r"the first word of (?:PAMI|RISE)", printed)) == 3
    with Image.open(file) as picture:
        assert picture.width > 500
    assert torch.get_num_threads() == threads


# Captions.


def scene(**places):
    """A mask with a 4×4 square of each class at (row, column)."""
    mask = np.zeros((40, 40), np.uint8)
    for name, (row, column) in places.items():
        mask[row : row + 4, column : column + 4] = CLASSES.index(name) + 1
    return mask


@pytest.mark.parametrize(
    ("mask", "caption"),
    [
        (scene(), ""),
        (scene(disc=(5, 5)), "disc"),
        (scene(disc=(5, 5), square=(10, 30)), "disc left of square"),
        (scene(disc=(10, 30), square=(5, 5)), "square left of disc"),
        (scene(disc=(5, 5), square=(30, 10)), "disc above square"),
        (scene(disc=(30, 5), square=(5, 10)), "square above disc"),
        (scene(disc=(5, 30), star=(30, 5), ring=(5, 20)), "star , ring and disc"),
        (scene(disc=(5, 30), star=(30, 5), ring=(5, 20), heart=(0, 0)), "heart , star , ring and disc"),
    ],
)
def test_a_caption_says_what_the_mask_shows(mask, caption):
    assert " ".join(caption_model.describe(mask)) == caption


@pytest.fixture(scope="module")
def captioner():
    torch.manual_seed(0)
    return caption_model.Captioner(width=8).eval()


def test_the_explained_probability_is_that_of_the_word_after_those_before_it(captioner):
    image, caption = torch.randn(2, 3, 32, 32), ["star", "above", "disc"]
    cells = captioner.cells(image)
    state, word = cells.mean(dim=1), torch.zeros(2, dtype=torch.long)
    expected = []
    for name in caption:
        logits, state = captioner.step(cells, state, word)
        word = torch.full((2,), caption_model.NUMBER[name])
        expected.append(logits.softmax(dim=1)[:, word[0]])
    score = caption_example.caption_score(captioner, caption, [0, 2])
    assert score.card.classes == ("star", "disc")
    torch.testing.assert_close(score(image), torch.stack([expected[0], expected[2]], dim=1))


def test_a_written_caption_is_the_likeliest_word_after_the_other(captioner):
    image = torch.randn(3, 3, 32, 32)
    for single, caption in zip(image, captioner.write(image), strict=True):
        ended = [*caption, caption_model.END][: caption_model.MOST_WORDS]
        logits = captioner(single[None], caption_model.encode([caption])[:, : len(ended)])
        assert [caption_model.WORDS[number] for number in logits[0].argmax(dim=1)] == ended


def test_captions_that_say_how_a_disc_and_a_square_lie_are_drawn_first():
    captions = [text.split() for text in ("ring", "", "disc and square", "ring above star", "square above disc")]
    assert caption_example.choose(captions, 3) == [4, 3, 2]
    with pytest.raises(ValueError, match="names nothing in any scene; train it longer"):
        caption_example.choose([[], ["and"]], 3)


def test_the_shares_of_right_names_and_captions():
    ours = [["disc"], ["star", "above", "ring"]]
    theirs = [["disc", "left", "of", "square"], ["star", "above", "ring"]]
    line = caption_example.verdict(ours, theirs)
    assert line == (
        "2 test scenes: 1.000 of the names are right, 0.750 of the classes are named, "
        "0.500 of the captions are right as a whole"
    )


def test_the_caption_example_trains_explains_and_draws(tmp_path, capsys):
    sizes = {"scenes": 64, "epochs": 30, "tested": 24, "asked": 1, "drawn": 1, "image_size": 32, "masks": 20}
    arguments = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    file = caption_example.main([*arguments, "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "24 test scenes: 0." in printed
    assert re.search(r"pami: \d+ of \d+ names point", printed) and re.search(r"rise: \d+ of \d+ names", printed)
    with Image.open(file) as picture:
        assert picture.height > 400
