"""Reading weight files and loading them with errors that say what is wrong."""

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from explainer.files import whole

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict of a checkpoint."""


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file or a pickled state dict; nothing in the file is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a state dict, or a cut or unsafe one.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"No weight file at {file}; pass the path of a safetensors file or a PyTorch state dict."
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():  # torch's, of pickles that it then refuses anyway
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{file} is not a plain state dict; save model.state_dict() in a trusted place and pass that file. "
            f"({_first_line(error)})"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is not a readable weight file, or cut short: {_first_line(error)}") from error
    for wrapper in WRAPPERS:
        within = state.get(wrapper) if isinstance(state, Mapping) else None
        state = within if isinstance(within, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} holds no state dict (names to tensors); save model.state_dict() and pass that file.")
    return dict(state)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def without_prefix(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """A state dict as the module itself would name it, which another module held when it was saved.

    Lightning modules save `model.conv.weight`, or the like, for `conv.weight`, and DistributedDataParallel
    `module.conv.weight`.

    Args:
        state: the state dict.
        names: of the module's own weights; if not all of them are there under one prefix, the state stays as it is.
    """
    first = min(names, default="")
    prefixes = {name.removesuffix(first) for name in state if name.endswith(f".{first}")}
    for prefix in sorted(prefixes, key=len):
        if all(prefix + name in state for name in names):
            return {name: state[prefix + name] for name in names}
    return dict(state)


def load_matching(
    module: nn.Module, state: Mapping[str, Tensor], may_miss: tuple[str, ...], source: object
) -> list[str]:
    """Copy weights into a module by name and shape.

    Args:
        module: takes the weights, in its own dtype.
        state: may hold more than the module needs.
        may_miss: submodules (a fresh head) that the state may lack or hold in another shape; such a submodule keeps
            all of its own weights, so that it never becomes a mixture.
        source: where the weights come from, for the error message.

    Returns:
        Names of the weights within `may_miss` that the state lacks or holds in another shape.

    Raises:
        ValueError: if a weight outside `may_miss` is missing or has another shape.
    """
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    missing = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    left_aside = {part for part in may_miss for name in missing if _is_within(name, part)}
    excused = [name for name in missing if any(_is_within(name, part) for part in left_aside)]
    missing = [name for name in missing if name not in excused]
    if missing:
        raise ValueError(
            f"{source} does not fit: {some(missing)} missing or of another shape. Is it of the same architecture?"
        )
    kept = {name: value for name, value in fitting.items() if not any(_is_within(name, part) for part in left_aside)}
    module.load_state_dict(kept, strict=False)
    return excused


def some(names: list[str]) -> str:
    """The first five of many names, for an error message, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def save_weights(module: nn.Module, file: Path, metadata: dict[str, str]) -> None:
    """Write a module's weights as safetensors, whole or not at all (temporary file, rename)."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with whole(file) as beside:
        save_file(state, beside, metadata)


def read_metadata(file: Path) -> dict[str, str]:
    """The text notes in a safetensors file's header.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no safetensors file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"No weight file at {file}.")
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from error
