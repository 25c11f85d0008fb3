"""The folder that a training run leaves behind, and everything that is read from it again."""

import errno
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from explainer.explanandum import Explanandum
from explainer.network import Explainer
from explainer.weights import load_matching, read_metadata, read_state_dict, save_weights

ExplainerT = TypeVar("ExplainerT", bound=Explainer)

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "segmentation-models-pytorch", "timm", "torchmetrics"),
    *("numpy", "scikit-image", "opencv-contrib-python", "pycocotools", "safetensors", "jsonargparse"),
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run.

    Args:
        path: the folder.
    """

    path: Path

    def __post_init__(self) -> None:
        """Take a string too."""
        object.__setattr__(self, "path", Path(self.path))

    @property
    def config(self) -> Path:
        """Every option of the run; this file alone repeats it."""
        return self.path / "config.yaml"

    @property
    def explanandum(self) -> Path:
        """The frozen classifier."""
        return self.path / "explanandum.safetensors"

    @property
    def explainer(self) -> Path:
        """The Explainer of the epoch with the best validation loss."""
        return self.path / "explainer.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Best and last checkpoint, with the optimiser's state."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint from which a killed run goes on."""
        return self.checkpoints / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """Written when the training is over."""
        return self.path / "summary.json"

    @property
    def environment(self) -> Path:
        """Versions, commit, command and hardware."""
        return self.path / "environment.txt"

    def read_config(self) -> dict[str, Any]:
        """The options of the run.

        Raises:
            FileNotFoundError: if this is not the folder of a run.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"{self.path} is not the folder of a run: it has no {self.config.name}.")
        return yaml.safe_load(self.config.read_text())

    def load_explanandum(self) -> Explanandum:
        """The run's frozen classifier.

        Raises:
            FileNotFoundError: if it has not been trained yet.
        """
        if not self.explanandum.is_file():
            raise FileNotFoundError(f"{self.path} has no {self.explanandum.name} yet: its training is not over.")
        return Explanandum.load(self.explanandum)

    def load_explainer(self) -> Explainer:
        """The run's trained Explainer, in eval mode.

        Raises:
            FileNotFoundError: if the run has not finished an epoch yet.
        """
        self.require_explainer()
        return load_explainer(self.explainer)

    def require_explainer(self) -> None:
        """Refuse a run that has no trained Explainer.

        Raises:
            FileNotFoundError: if it has not finished an epoch yet.
        """
        if not self.explainer.is_file():
            raise FileNotFoundError(f"{self.path} has no {self.explainer.name} yet: no epoch of the Explainer is done.")


def save_explainer(network: Explainer, file: Path, **notes: str) -> None:
    """Write the Explainer to a file that alone rebuilds it; whole or not at all."""
    save_weights(network, file, {name: str(value) for name, value in network.recipe.items()} | notes)


def load_explainer(file: Path, kind: type[ExplainerT] = Explainer) -> ExplainerT:  # type: ignore[assignment]
    """Rebuild the Explainer that `save_explainer` wrote, in eval mode.

    Args:
        file: where it lies.
        kind: class of what is returned.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file was not written by `save_explainer`.
    """
    notes = read_metadata(file)
    if "encoder" not in notes:
        raise ValueError(f"{file} holds plain weights, not an Explainer that train.py saved.")
    network = kind.from_recipe(notes)
    load_matching(network, read_state_dict(file), may_miss=(), source=file)
    return network.eval()


def choose_folder(output: Path, name: str) -> RunFolder:
    """`output/name`, or `output/name-2`, `-3` … where that is taken; it is created at once, so that it stays ours."""
    for number in range(1, 10_000):
        path = output / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return RunFolder(path)
    raise FileExistsError(f"{output} holds 9999 runs named {name}; choose another --name.")


def require_writable(folder: Path, option: str = "--output") -> None:
    """Create a folder and try to write into it.

    Args:
        folder: any.
        option: that another one is chosen with.

    Raises:
        OSError: if that fails, with the remedy.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO, f"Cannot write to {folder} ({error.strerror}); pass another {option}"
        ) from error


def require_space(folder: Path, needed: int, option: str = "--output") -> None:
    """Check free disk space before hours of training depend on it.

    Args:
        folder: an existing folder on the disk.
        needed: bytes.
        option: that another folder is chosen with.

    Raises:
        OSError: if less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder} has {free >> 20} MiB free, the run needs about {needed >> 20}; pass another {option}",
        )


def environment() -> str:
    """Versions, commit and hardware, one `name: value` a line."""
    lines = [f"python: {platform.python_version()}", *(f"{name}: {_version(name)}" for name in PACKAGES)]
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or ["none"]
    lines += [
        f"commit: {_commit()}",
        f"command: {' '.join(sys.argv)}",
        f"platform: {platform.platform()}",
        f"processor: {_processor()} ({os.cpu_count()} cores)",
        f"gpu: {', '.join(devices)}",
    ]
    return "\n".join(lines) + "\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def _processor() -> str:
    try:
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
