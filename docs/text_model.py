"""A small classifier of review sentences, and the sentences, made for text_example.py.

N sentences of a batch, L words of the longest.
"""

import random
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

LABELS = {"positive": 1, "negative": 0}
OPPOSITE = {"good": "bad", "bad": "good", "liked": "hated", "hated": "liked"}
TURNING = ("not", "never", "hardly", "far", "anything", "nothing", "without")
"""Words of the templates that turn an opinion."""
ASKED = 100
"""Sentences on which the methods are compared."""
ABSENT = "_"
"""The mask token. Words that were not in the training sentences are read as it, too."""
BATCH = 64

Sentence = tuple[list[str], int]
"""Words, and 1 for a positive review."""


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
