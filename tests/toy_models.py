"""Classifiers small enough to reason about, some with attribution maps that are known in closed form.

B images, C classes, K channels, H×W pixels.
"""

import torch
from torch import nn

from explainer.explanandum import ClassifierCard, Explanandum

CLASSES = ("cat", "dog", "hen")
SIZE = 32


def card(architecture="toy", classes=CLASSES, size=SIZE, **changes):
    """A card for three classes and images that are not normalised."""
    return ClassifierCard(architecture, tuple(classes), size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), **changes)


def freeze(model, target_layer="", **changes):
    """The model as an explanandum."""
    return Explanandum(model, card(target_layer=target_layer, **changes))


class SmallNet(nn.Module):
    """What real classifiers are made of, in little: uneven BatchNorm statistics, in-place ReLU, dropout."""

    def __init__(self, classes=3, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
                *(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            )
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.5))
            self.logits = nn.Linear(16, classes)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.1)
                    module.running_var.uniform_(0.5, 1.5)

    def forward(self, image):
        return self.logits(self.head(self.pool(self.features(image)).flatten(1)))


class Windows(nn.Module):
    """Brightness, seen through one window a class: image [B,3,H,W] -> [B,C,H,W], zero outside the class's window."""

    def __init__(self, windows):
        super().__init__()
        self.register_buffer("windows", windows)

    def forward(self, image):
        return image.mean(dim=1, keepdim=True) * self.windows


class WindowNet(nn.Module):
    """Each class's logit is the brightness within its own square and reads nothing else of the image.

    The squares are `side` wide and lie side by side on the diagonal, so that class 1's is in the middle.
    """

    def __init__(self, classes=3, size=SIZE, side=8):
        super().__init__()
        windows = torch.zeros(classes, size, size)
        self.corners = [round(index * (size - side) / max(1, classes - 1)) for index in range(classes)]
        for index, corner in enumerate(self.corners):
            windows[index, corner : corner + side, corner : corner + side] = 1
        self.windows = Windows(windows)
        self.scale = nn.Parameter(torch.tensor(size**2 / side**2))

    def forward(self, image):
        return self.windows(image).mean(dim=(2, 3)) * self.scale


class GapNet(nn.Module):
    """Convolution, ReLU, global mean, linear: Grad-CAM is ReLU(linear weights · channels) / (h·w)."""

    def __init__(self, classes=3, channels=5, seed=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU())
            self.linear = nn.Linear(channels, classes)

    def forward(self, image):
        return self.linear(self.features(image).mean(dim=(2, 3)))


class FlatNet(nn.Module):
    """A linear classifier of the pixels: no layer gives a map."""

    def __init__(self, classes=3, size=SIZE):
        super().__init__()
        self.linear = nn.Linear(3 * size * size, classes)

    def forward(self, image):
        return self.linear(image.flatten(1))


class BrokenError(RuntimeError):
    """What `Breaks` raises."""


class Breaks(nn.Module):
    """Raises once it is told to."""

    broken = False

    def forward(self, value):
        if self.broken:
            raise BrokenError
        return value


class BreakableNet(SmallNet):
    """A SmallNet that fails late in its forward pass while `breaks.broken`."""

    def __init__(self, classes=3):
        super().__init__(classes)
        self.breaks = Breaks()

    def forward(self, image):
        return self.breaks(super().forward(image))


def state_of(*modules):
    """Everything that an attribution method must leave as it was, in a form that `==` compares bit for bit."""
    return [
        {
            "weights": {name: value.detach().clone().numpy().tobytes() for name, value in part.state_dict().items()},
            "training": {name: module.training for name, module in part.named_modules()},
            "hooks": {
                name: (
                    *(len(module._forward_hooks), len(module._forward_pre_hooks)),
                    *(len(module._backward_hooks), len(module._backward_pre_hooks)),
                )
                for name, module in part.named_modules()
            },
            "requires_grad": {name: value.requires_grad for name, value in part.named_parameters()},
            "grad": {
                name: None if value.grad is None else value.grad.numpy().tobytes()
                for name, value in part.named_parameters()
            },
            "methods": {name: sorted(vars(module)) for name, module in part.named_modules()},
        }
        for part in modules
    ]
