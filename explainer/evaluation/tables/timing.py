"""What a method costs (NN-Explainer, Table 3; Group-CAM, Table 3).

B images, C classes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import differences, mean_of, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table, at_least
from explainer.explanandum import Explanandum
from explainer.passes import recorded, totals

MEASURES = (mean_of("seconds"), mean_of("forward"), mean_of("backward"))


@dataclass(frozen=True)
class TimingOptions:
    """How much is timed.

    Args:
        images: So many, evenly spaced over the split, each by itself.
        warm_up: Calls before the first image that don't count.
    """

    images: int = 8
    warm_up: int = 1

    def __post_init__(self) -> None:
        """Refuse a table without images."""
        at_least("timing.images", self.images, 1)
        at_least("timing.warm_up", self.warm_up, 0)


class TimingTable(Table):
    """Seconds and passes of the classifier for the maps of all present classes of an image, images one by one.

    The device is waited for before and after each call; loading images and writing maps is not in it. Images that went
    forward or backward through the classifier are counted, whatever batches they came in. Training is stated apart.
    Each row names the device: seconds from several, where an evaluation went on elsewhere, don't make a mean.

    Files: `timing`, `timing_differences`.

    Args:
        explanandum: the classifier.
        options: how much is timed.
        training_hours: that the learned method took, by name of the row.
    """

    name = "timing"
    wants_maps = False
    calls_methods = True
    options: TimingOptions

    def __init__(
        self, explanandum: Explanandum, options: TimingOptions, training_hours: dict[str, float] | None = None
    ) -> None:
        super().__init__(explanandum, options)
        self.training_hours = training_hours or {}
        self._warm: set[str] = set()

    @property
    def limit(self) -> int | None:
        """A few are enough."""
        return self.options.images

    def circumstances(self, device: torch.device) -> str:
        """The device: seconds of another one are no seconds of this one."""
        return _name(device)

    def asks(self, images: Images) -> Tensor:
        """The present classes."""
        return images.labels

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """One row an image."""
        return [[self._time(named, images, index)] for index in range(len(images))]

    def _time(self, named: NamedMethod, images: Images, index: int) -> Row:
        image, labels = images.image[index : index + 1], images.labels[index : index + 1]
        image = image.contiguous(memory_format=torch.channels_last)
        if named.key not in self._warm:
            for _ in range(self.options.warm_up):
                named.method.present_class_maps(image, labels)
            self._warm.add(named.key)
        with recorded(self.explanandum.model) as passes:
            _wait(image.device)
            start = time.perf_counter()
            named.method.present_class_maps(image, labels)
            _wait(image.device)
            seconds = time.perf_counter() - start
        forward, backward = totals(passes)
        return {
            "seconds": seconds,
            "forward": forward,
            "backward": backward,
            "classes": int(labels.sum()),
            "device": _name(image.device),
        }

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Costs, and how methods differ in seconds."""
        return {self.name: self.main_rows(scores), "timing_differences": differences(scores, MEASURES[:1])}

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Means, medians of the seconds, classes an image, devices, and training."""
        rows = summary(scores, MEASURES)
        for row, one in zip(rows, scores, strict=True):
            timed = list(one.flat)
            row["median_seconds"] = median(value["seconds"] for value in timed) if timed else None
            row["classes"] = mean(value["classes"] for value in timed) if timed else None
            row["device"] = " and ".join(sorted({value["device"] for value in timed}))
            row["training_hours"] = self.training_hours.get(one.method)
        return rows


def _name(device: torch.device) -> str:
    """Of what was timed; on a CPU the number of threads matters as much."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} thread(s)" if device.type == "cpu" else device.type


def _wait(device: torch.device) -> None:
    """Until the device has done all it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
