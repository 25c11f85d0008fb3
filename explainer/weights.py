"""Reading weight files and loading them with errors that say what is wrong."""

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


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
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file} is not a readable weight file: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} holds no state dict (names to tensors); save model.state_dict() and pass that file.")
    return dict(state)


def load_matching(module: nn.Module, state: Mapping[str, Tensor], may_miss: tuple[str, ...], source: object) -> None:
    """Copy weights into a module by name and shape.

    Args:
        module: takes the weights, in its own dtype.
        state: may hold more than the module needs.
        may_miss: prefixes of names that the state may lack or hold in another shape (a fresh head).
        source: where the weights come from, for the error message.

    Raises:
        ValueError: if a weight outside `may_miss` is missing or has another shape.
    """
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    missing = [
        name
        for name in own
        if name not in fitting and not name.startswith(may_miss or ("\0",)) and not name.endswith("num_batches_tracked")
    ]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ValueError(f"{source} does not fit: {shown} missing or of another shape. Is it of the same architecture?")
    module.load_state_dict(fitting, strict=False)


def save_weights(module: nn.Module, file: Path, metadata: dict[str, str]) -> None:
    """Write a module's weights as safetensors, whole or not at all (temporary file, rename)."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary, metadata)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


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
