"""Classifiers that a user's own code makes: `path/to/file.py:make_model` or `package.module:make_model`.

Such code runs only after `use_own_code`, which programs call for what stands on their command line and for nothing
else: a configuration, a run folder or a weight file may name code, but can't have it run.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

EXAMPLE = "path/to/file.py:make_model or package.module:make_model"


@dataclass(frozen=True)
class OwnCode:
    """A user's function that makes a classifier.

    Args:
        name: file or module, and function; without folders, so that it is the same on every machine.
        version: hash of the file's content.
        make: the function.
        file: where it stands.
    """

    name: str
    version: str
    make: Callable[..., Any]
    file: Path

    def build(self, num_classes: int, image_size: int) -> nn.Module:
        """The classifier, on the CPU, with whatever weights the code gives it.

        The function is told the number of classes and the size of images if it has a parameter of that name.

        Raises:
            ValueError: if the code fails, or gives something else.
        """
        offered = {"num_classes": num_classes, "image_size": image_size}
        taken = inspect.signature(self.make).parameters
        # The device: callers may ask for networks without memory, which code that reads weights can't make.
        with torch.device("cpu"), _faults_of(self.name, self.file):
            model = self.make(**{name: value for name, value in offered.items() if name in taken})
        if not isinstance(model, nn.Module):
            raise ValueError(f"{self.name} returns a {type(model).__name__}; it must return a torch.nn.Module.")
        if next(model.parameters(), None) is None:
            raise ValueError(f"{self.name} returns a model without parameters; it must return a trained classifier.")
        return model.cpu()


_IN_USE: dict[str, OwnCode] = {}
"""By name: the code that may run in this process."""


def is_own(architecture: str) -> bool:
    """Whether this names a user's code, not an architecture of torchvision or timm."""
    return ":" in architecture and not architecture.startswith("timm:")


def own_name(text: str) -> str:
    """How a user's code is called wherever it is written down: without its folder. Other names stay as they are."""
    if not is_own(text):
        return text
    place, _, function = text.rpartition(":")
    return f"{Path(place).name}:{function}"


def use_own_code(text: str) -> OwnCode:
    """Run a user's file (or import the module), and let `own_code` find its function from here on.

    Args:
        text: as `EXAMPLE` says; a relative path is one from the working directory, where modules are looked for too.

    Raises:
        ValueError: if there is no such file, module or function, or the code fails.
    """
    place, _, function = text.rpartition(":")
    module = _module_of_file(Path(place), text) if place.endswith(".py") else _imported(place, text)
    make = getattr(module, function, None)
    if not callable(make):
        known = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
        raise ValueError(f"{place} has no function '{function}'; it has: {', '.join(known) or 'none'}.")
    file = Path(str(module.__file__))
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    code = OwnCode(own_name(text), version, make, file)
    _IN_USE[code.name] = code
    return code


def own_code(name: str) -> OwnCode:
    """The code of that name.

    Raises:
        ValueError: if nobody has said that it may run.
    """
    if name not in _IN_USE:
        raise ValueError(
            f"The classifier is made by code, '{name}', which runs only if you name it. If you trust it, say where it "
            f"is: --explanandum path/to/{name} (in Python: use_own_code of explainer.own_classifier)."
        )
    return _IN_USE[name]


def _module_of_file(file: Path, text: str) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"No file {file} for --explanandum {text}; give {EXAMPLE}.")
    # A name of its own, under which classes can be found again, and which hides no other module.
    name = f"explanandum_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no Python file; give {EXAMPLE}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # As for a script, its neighbours can be imported, but ours come first.
        with _also_from(file.resolve().parent), _faults_of(text, file.resolve()):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(place: str, text: str) -> ModuleType:
    if not place or not all(part.isidentifier() for part in place.split(".")):
        raise ValueError(f"--explanandum {text} is neither an architecture nor code; give {EXAMPLE}.")
    try:
        with _also_from(Path.cwd()), _faults_of(text):
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--explanandum {text}: {error}. Name a module that is installed or lies in the working directory, or a "
            "file: path/to/file.py:make_model."
        ) from error


@contextmanager
def _also_from(folder: Path) -> Iterator[None]:
    """Import from a folder too, where nothing else has a module of that name."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _faults_of(name: str, file: Path | None = None) -> Iterator[None]:
    """Turn an error of the user's code into one that says where it is."""
    try:
        yield
    except Exception as error:
        if file is None and isinstance(error, ModuleNotFoundError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if file is not None and Path(frame.filename) == file]
        where = f" (line {lines[-1]})" if lines else ""
        raise ValueError(f"The code of {name} fails{where}: {type(error).__name__}: {error}") from error
