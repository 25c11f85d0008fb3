"""Files with classifiers as users write them."""

from textwrap import dedent

import pytest

from explainer import own_classifier

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.head = nn.Linear(8, classes)

    def forward(self, image):
        return self.head(self.features(image).relu().mean(dim=(2, 3)))

def make_model(num_classes=3):
    return Net(num_classes)
"""


def write_code(folder, text=NET, name="net.py"):
    """A file; returns how --explanandum names its `make_model`."""
    (folder / name).write_text(dedent(text))
    return f"{folder / name}:make_model"


@pytest.fixture
def no_own_code(monkeypatch):
    """No code may run yet, and after the test none of it any more."""
    monkeypatch.setattr(own_classifier, "_IN_USE", {})
