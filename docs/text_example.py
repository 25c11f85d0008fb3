"""Train a small classifier of review sentences, and draw which words speak for its verdict: PAMI and RISE for text.

`python docs/text_example.py` writes `text_words.png`, in seconds on two cores.

The sentences are those of `reviews.yaml`, the classifier that of `text_model.py`.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from text_model import ABSENT, Corpus, Reviewer, accuracy, read_corpus, train

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the programs and their parts lie

from explainer.entry import run_command
from explainer.report.words import Scale, WordRow, WordText, draw_words
from explainer.run_folder import require_writable
from explainer.sequences import TokenMethod, TokenPAMI, TokenPAMIWindow, TokenRISE, words
from programs.parser import HelpFormatter, Parser, to_dataclass

HERE = Path(__file__).parent
SENTENCES = (
    "the soup was cold but our waiter was wonderful",
    "the food was not good",
    "there was nothing bad about this hotel",
    "i never liked the songs , the singer was awful",
)
"""What is explained. None of them is among the sentences of reviews.yaml."""

SCALE = Scale(0, 1, "negative", "positive")


@dataclass
class TextOptions:
    """How the classifier is trained and where the picture goes.

    Args:
        epochs: Of the training.
        filled: Sentences for training that are made from templates; a quarter as many are held out.
        masks: Of RISE.
        seed: Of the sentences, the classifier and RISE.
        output: Folder of the picture.
    """

    epochs: int = 10
    filled: int = 4000
    masks: int = 1000
    seed: int = 0
    output: Path = HERE


def main(arguments: list[str] | None = None) -> Path:
    """Train, explain, draw; returns the picture's file."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    require_writable(options.output)
    with one_thread():
        corpus = read_corpus(HERE / "reviews.yaml", options.filled, options.seed)
        classifier = trained(corpus, options)
        methods = make_methods(classifier, options)
        print(f"a word at random says or turns an opinion in {chance(corpus):.2f} of {len(corpus.asked)} sentences")
        for name, method in methods.items():
            print(f"the first word of {name} does in {found(method, corpus):.2f}")
        texts = [explain(classifier, sentence.split(), methods) for sentence in SENTENCES]
    file = options.output / "text_words.png"
    Image.fromarray(draw_words(texts, SCALE)).save(file, optimize=True)
    return file


def parse_options(arguments: list[str]) -> TextOptions:
    """Command line -> options."""
    parser = Parser(prog="text_example.py", description=__doc__.split("\n")[0], formatter_class=HelpFormatter)
    parser.add_class_arguments(TextOptions, None)
    return to_dataclass(TextOptions, parser.parse_args(arguments))


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads would wait for each other longer than they work: the classifier is that small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trained(corpus: Corpus, options: TextOptions) -> Reviewer:
    """The classifier; prints what it is worth."""
    start = time.perf_counter()
    classifier = train(corpus.train, options.epochs, options.seed)
    print(f"trained on {len(corpus.train)} sentences in {time.perf_counter() - start:.1f} s")
    for made, held_out in (("from templates", corpus.filled), ("written one by one", corpus.written)):
        print(f"accuracy on {len(held_out)} held-out sentences {made}: {accuracy(classifier, held_out):.3f}")
    return classifier


def make_methods(classifier: Reviewer, options: TextOptions) -> dict[str, TokenMethod]:
    """The methods by the names that the picture gives them."""
    score = classifier.positive
    return {
        "PAMI, windows 1 to 3": TokenPAMIWindow(score, sizes=(1, 2, 3), mask_token=ABSENT),
        "PAMI, single words": TokenPAMI(score, segmentations=(words,), mask_token=ABSENT),
        f"RISE, {options.masks} masks": TokenRISE(score, options.masks, seed=options.seed, mask_token=ABSENT),
    }


def found(method: TokenMethod, corpus: Corpus) -> float:
    """How often the word that speaks most for a sentence's label is an opinion or what turns one."""
    hits = 0
    for sentence, label in corpus.asked:
        value = method(sentence)
        hits += sentence[int(value.argmax() if label else value.argmin())] in corpus.opinions
    return hits / len(corpus.asked)


def chance(corpus: Corpus) -> float:
    """The same of a word that is drawn at random."""
    shares = [sum(word in corpus.opinions for word in sentence) / len(sentence) for sentence, _ in corpus.asked]
    return sum(shares) / len(shares)


def explain(classifier: Reviewer, sentence: list[str], methods: dict[str, TokenMethod]) -> WordText:
    """What each word contributes to the probability of a positive review, after each method."""
    with torch.no_grad():
        whole = float(classifier.positive([sentence]))
    rows = [WordRow(name, method(sentence).tolist()) for name, method in methods.items()]
    return WordText(f"Whole sentence: positive with probability {whole:.2f}", sentence, rows)


if __name__ == "__main__":
    run_command(main)
