"""Train a small classifier of review sentences, and draw which words speak for its verdict: PAMI and RISE for text.

`python docs/text_example.py` writes `text_words.png`, in seconds on two cores.

N sentences of a batch, L words of the longest.
"""

import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import Tensor, nn

from command_line import HelpFormatter, Parser, to_dataclass
from explainer.entry import run_command
from explainer.report.words import Scale, WordRow, WordText, draw_words
from explainer.run_folder import require_writable
from explainer.sequences import TokenMethod, TokenPAMI, TokenPAMIWindow, TokenRISE, words

HERE = Path(__file__).parent
LABELS = {"positive": 1, "negative": 0}
OPPOSITE = {"good": "bad", "bad": "good", "liked": "hated", "hated": "liked"}
TURNING = ("not", "never", "hardly", "far", "anything", "nothing", "without")
"""Words of the templates that turn an opinion."""
ASKED = 100
"""Sentences on which the methods are compared."""
ABSENT = "_"
"""The mask token. Words that were not in the training sentences are read as it, too."""

SENTENCES = (
    "the soup was cold but our waiter was wonderful",
    "the food was not good",
    "there was nothing bad about this hotel",
    "i never liked the songs , the singer was awful",
)
"""What is explained. None of them is among the sentences of reviews.yaml."""

BATCH = 64
SCALE = Scale(0, 1, "negative", "positive")

Sentence = tuple[list[str], int]
"""Words, and 1 for a positive review."""


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


@dataclass
class Corpus:
    """Sentences to train on and two kinds of held-out ones.

    Args:
        train: of both kinds.
        filled: from templates.
        written: one by one.
        opinions: words of the templates that say or turn an opinion.
    """

    train: list[Sentence]
    filled: list[Sentence]
    written: list[Sentence]
    opinions: frozenset[str]

    @property
    def asked(self) -> list[Sentence]:
        """Held-out sentences on which the methods are compared."""
        return self.filled[:ASKED]


def main(arguments: list[str] | None = None) -> Path:
    """Train, explain, draw; returns the picture's file."""
    parser = Parser(prog="text_example.py", description=__doc__.split("\n")[0], formatter_class=HelpFormatter)
    parser.add_class_arguments(TextOptions, None)
    options = to_dataclass(TextOptions, parser.parse_args(sys.argv[1:] if arguments is None else arguments))
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads would wait for each other longer than they work: the classifier is that small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trained(corpus: Corpus, options: TextOptions) -> "Reviewer":
    """The classifier; prints what it is worth."""
    start = time.perf_counter()
    classifier = train(corpus.train, options.epochs, options.seed)
    print(f"trained on {len(corpus.train)} sentences in {time.perf_counter() - start:.1f} s")
    for made, held_out in (("from templates", corpus.filled), ("written one by one", corpus.written)):
        print(f"accuracy on {len(held_out)} held-out sentences {made}: {accuracy(classifier, held_out):.3f}")
    return classifier


def make_methods(classifier: "Reviewer", options: TextOptions) -> dict[str, TokenMethod]:
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


def explain(classifier: "Reviewer", sentence: list[str], methods: dict[str, TokenMethod]) -> WordText:
    """What each word contributes to the probability of a positive review, after each method."""
    with torch.no_grad():
        whole = float(classifier.positive([sentence]))
    rows = [WordRow(name, method(sentence).tolist()) for name, method in methods.items()]
    return WordText(f"Whole sentence: positive with probability {whole:.2f}", sentence, rows)


def read_corpus(file: Path, count: int, seed: int) -> Corpus:
    """Every third written sentence, and templates filled anew, are kept from training."""
    source = yaml.safe_load(file.read_text())
    written = [(text.split(), label) for name, label in LABELS.items() for text in source["written"][name]]
    generator = random.Random(seed)
    filled = fill_templates(source, count + count // 4, generator)
    train = filled[:count] + [sentence for index, sentence in enumerate(written) if index % 3]
    known = {" ".join(sentence) for sentence, _ in train}
    held_out = [(sentence, label) for sentence, label in filled[count:] if " ".join(sentence) not in known]
    opinions = [word for gap in OPPOSITE for word in source["words"][gap]]
    return Corpus(train, held_out, written[::3], frozenset((*opinions, *TURNING)))


def fill_templates(source: dict[str, Any], count: int, generator: random.Random) -> list[Sentence]:
    """Templates with a random word in each {gap}; every second one with its opinions exchanged, a negative review."""

    def word(gap: re.Match[str], label: int) -> str:
        return generator.choice(source["words"][gap[1] if label else OPPOSITE.get(gap[1], gap[1])])

    filled = []
    for index in range(count):
        label = index % 2
        text = re.sub(r"{(\w+)}", partial(word, label=label), generator.choice(source["templates"]))
        filled.append((text.split(), label))
    return filled


class Reviewer(nn.Module):
    """Words -> embedding -> GRU in both directions -> maximum over the words -> logit of a positive review."""

    def __init__(self, vocabulary: list[str], width: int = 32) -> None:
        super().__init__()
        self.number = {word: index for index, word in enumerate([ABSENT, *vocabulary])}
        self.embedding = nn.Embedding(len(self.number), width)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * width, 1)

    def forward(self, token: Tensor, length: Tensor) -> Tensor:
        """Tokens [N,L], and how many of each row are words, long [N] -> logits [N]."""
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(token), length, True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, padding_value=-torch.inf)
        return self.head(self.dropout(states.max(dim=1).values))[:, 0]

    def encode(self, sentences: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Words as numbers [N,L], filled up with mask tokens, and lengths [N]."""
        rows = [torch.tensor([self.number.get(word, 0) for word in sentence]) for sentence in sentences]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])

    def positive(self, sentences: list[list[str]]) -> Tensor:
        """The score that is explained: the probability of a positive review, [N]."""
        return self(*self.encode(sentences)).sigmoid()


def train(sentences: list[Sentence], epochs: int, seed: int) -> Reviewer:
    """AdamW, one cycle; up to half of a sentence's words are masked, so that fragments are nothing new to it."""
    torch.manual_seed(seed)
    classifier = Reviewer(sorted({word for sentence, _ in sentences for word in sentence}))
    optimizer = torch.optim.AdamW(classifier.parameters())
    steps = epochs * -(-len(sentences) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    token, length = classifier.encode([sentence for sentence, _ in sentences])
    label = torch.tensor([float(label) for _, label in sentences])
    for _ in range(epochs):
        for chosen in torch.randperm(len(sentences)).split(BATCH):
            hidden = torch.rand(len(chosen), token.shape[1]) < 0.5 * torch.rand(len(chosen), 1)
            logit = classifier(token[chosen].masked_fill(hidden, 0), length[chosen])
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logit, label[chosen]).backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: Reviewer, sentences: list[Sentence]) -> float:
    """Share of sentences whose verdict is right."""
    verdict = classifier.positive([sentence for sentence, _ in sentences]) > 0.5
    return float((verdict == torch.tensor([label for _, label in sentences])).float().mean())


if __name__ == "__main__":
    run_command(main)
