"""A small captioning model for the drawn scenes of `shapes`, made for caption_example.py.

N images of a batch, T words of the longest caption, V words of the vocabulary, K channels, P cells of the feature map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.sample import Split
from datamodules.shapes import ShapesOptions, ShapesSource
from datamodules.shapes_scene import CLASSES

END = "."
RELATIONS = ("left", "above")
WORDS = (END, "left", "of", "above", ",", "and", *CLASSES)
NUMBER = {word: index for index, word in enumerate(WORDS)}
MOST_WORDS = 8
"""Of a caption: four names, what joins them, and the end."""
MEAN = STD = (0.5, 0.5, 0.5)
BATCH = 64


@dataclass
class Scenes:
    """Scenes with their captions.

    Args:
        image: float [N,3,H,W], normalised.
        mask: [N,H,W], 0 background, i + 1 for class i.
        captions: made from the masks.
    """

    image: Tensor
    mask: NDArray[np.uint8]
    captions: list[list[str]]


def read_scenes(split: Split, count: int, image_size: int) -> Scenes:
    """The first scenes of a split of `shapes`."""
    source = ShapesSource(split, image_size, ShapesOptions(**{f"{split}_size": count}))
    samples = [source[index] for index in range(count)]
    pixels = torch.from_numpy(np.stack([np.asarray(sample.image) for sample in samples])).permute(0, 3, 1, 2)
    mask = np.stack([np.asarray(sample.mask) for sample in samples])
    return Scenes((pixels / 255 - MEAN[0]) / STD[0], mask, [describe(each) for each in mask])


def describe(mask: NDArray[np.uint8]) -> list[str]:
    """A caption, from where the classes' middles are: "disc", "disc left of square", "disc above square".

    More than two are listed from left to right: "disc , star and ring".
    """
    middle = {CLASSES[label - 1]: np.argwhere(mask == label).mean(axis=0) for label in np.unique(mask) if label}
    across = sorted(middle, key=lambda name: middle[name][1])
    if len(across) == 2:
        upper, lower = sorted(middle, key=lambda name: middle[name][0])
        down, right = np.abs(middle[upper] - middle[lower])
        return [upper, "above", lower] if down > right else [across[0], "left", "of", across[1]]
    words = " , ".join(across).split()
    return words if len(words) < 2 else [*words[:-2], "and", words[-1]]


class Captioner(nn.Module):
    """Convolutions, and a GRU that looks at their cells anew for every word; cells know where they lie."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 24, 5, 2, 2), nn.BatchNorm2d(24), nn.ReLU()),
            *(nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(48, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        )
        self.place = nn.Linear(2, width)
        self.word = nn.Embedding(len(WORDS), width)
        self.gru = nn.GRUCell(2 * width, width)
        self.query = nn.Linear(width, width)
        self.head = nn.Linear(2 * width, len(WORDS))

    def cells(self, image: Tensor) -> Tensor:
        """Images [N,3,H,W] -> features [N,P,K]."""
        features = self.features(image)
        sides = (torch.linspace(-1, 1, side) for side in features.shape[2:])
        return features.flatten(2).mT + self.place(torch.cartesian_prod(*sides))

    def step(self, cells: Tensor, state: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
        """State [N,K] and the word before [N] -> logits of the next word [N,V], and the next state."""
        seen = F.scaled_dot_product_attention(self.query(state)[:, None], cells, cells)[:, 0]
        state = self.gru(torch.cat([self.word(word), seen], dim=1), state)
        seen = F.scaled_dot_product_attention(self.query(state)[:, None], cells, cells)[:, 0]
        return self.head(torch.cat([state, seen], dim=1)), state

    def forward(self, image: Tensor, caption: Tensor) -> Tensor:
        """Logits [N,T,V] of each word of the captions [N,T], the words before it being given."""
        cells = self.cells(image)
        state = cells.mean(dim=1)
        before = torch.cat([torch.zeros_like(caption[:, :1]), caption[:, :-1]], dim=1)  # END begins a caption, too
        logits = []
        for word in before.unbind(dim=1):
            answer, state = self.step(cells, state, word)
            logits.append(answer)
        return torch.stack(logits, dim=1)

    @torch.no_grad()
    def write(self, image: Tensor) -> list[list[str]]:
        """The likeliest word after the other, until the end."""
        cells = self.cells(image)
        state, word = cells.mean(dim=1), torch.zeros(len(image), dtype=torch.long)
        chosen = []
        for _ in range(MOST_WORDS):
            logits, state = self.step(cells, state, word)
            word = logits.argmax(dim=1)
            chosen.append(word)
        rows = torch.stack(chosen, dim=1).tolist()
        return [[WORDS[number] for number in (row[: row.index(0)] if 0 in row else row)] for row in rows]


def encode(captions: Sequence[Sequence[str]]) -> Tensor:
    """Captions as numbers [N,T], ended and filled up with END."""
    rows = [torch.tensor([NUMBER[word] for word in (*caption, END)]) for caption in captions]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def train(scenes: Scenes, epochs: int, seed: int) -> Captioner:
    """AdamW, one cycle, on the words' log-likelihood; mirrored images would need other captions, so there are none."""
    torch.manual_seed(seed)
    model = Captioner().to(memory_format=torch.channels_last)  # a quarter faster on a processor
    caption = encode(scenes.captions)
    optimizer = torch.optim.AdamW(model.parameters())
    steps = epochs * -(-len(caption) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(caption)).split(BATCH):
            logits = model(scenes.image[chosen], caption[chosen])
            optimizer.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), caption[chosen].flatten()).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
