"""Where and how fast: precision, devices, and the one way a Trainer is made."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from explainer.checkpoints import StayStopped, WholeFileCheckpoints
from explainer.left_out import UnreadableImages

T = TypeVar("T")

QUIET_MESSAGES = (
    "GPU available: ",
    "TPU available: ",
    "💡 Tip: ",  # advertises a product
    "Loading `train_dataloader` to estimate",
)
"""Beginnings of Lightning's log messages that tell a user of these programs nothing."""

QUIET_WARNINGS = (
    r"Total length of `DataLoader` across ranks is zero",  # a stage of which all is done already
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # between Lightning and torch
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the frozen explanandum: intended
    r"The '\w+' does not have many workers",  # the user's choice, and right for cached features
    r"Checkpoint directory .* exists and is not empty",  # a run that goes on
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # epochs are logged in any case
)
"""Beginnings (regular expressions) of warnings that are not for users."""

PATIENCE = timedelta(days=1)
"""How long a process that is done waits for the others, whose images may take longer."""

LONG_NAMES = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Of precisions, which Lightning takes too."""


@dataclass
class MachineOptions:
    """The hardware that a run uses.

    Args:
        precision: auto picks bf16-mixed where the processor has it natively, else 32.
        accelerator: auto (CUDA where there is one, else the CPU), cpu, gpu …, as Lightning names them.
        devices: How many (or auto for all); on a CPU, how many processes.
        num_nodes: Machines.
        strategy: How devices work together, e.g. ddp.
        compile: Compile the Explainer with torch.compile.
    """

    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    compile: bool = False


def make_trainer(machine: MachineOptions, *, patient: bool = False, **keywords: Any) -> Trainer:
    """A Trainer on the machine; SyncBatchNorm on several GPUs, the data set's own samplers, no default logger.

    Args:
        machine: the hardware.
        patient: its processes wait for each other PATIENCE long. A program's first Trainer decides for all: they share
            one group of processes.
        **keywords: of Lightning's Trainer.

    Raises:
        ValueError: if the machine is not as the options say.
    """
    trainer = _trainer(machine, machine.strategy, **keywords)
    if patient and machine.strategy in ("auto", "ddp") and isinstance(trainer.strategy, DDPStrategy):
        return _trainer(machine, DDPStrategy(timeout=PATIENCE), **keywords)
    return trainer


def _trainer(machine: MachineOptions, strategy: str | DDPStrategy, **keywords: Any) -> Trainer:
    silence()
    defaults: dict[str, Any] = {"num_sanity_val_steps": 0, "logger": False, "log_every_n_steps": 10}
    settings = defaults | keywords | {"callbacks": [*keywords.get("callbacks", ()), UnreadableImages(), StayStopped()]}
    try:
        return Trainer(
            # Not Lightning's own "auto": Apple's GPUs can't sum metrics in float64.
            accelerator="cpu" if machine.accelerator == "auto" and not uses_gpu(machine) else machine.accelerator,
            # On a CPU "auto" means one process: more would only compete for the same cores.
            devices=1 if machine.devices == "auto" and not uses_gpu(machine) else machine.devices,
            num_nodes=machine.num_nodes,
            strategy=strategy,
            precision=precision_of(machine),
            sync_batchnorm=uses_gpu(machine),
            use_distributed_sampler=False,
            enable_model_summary=False,
            plugins=[WholeFileCheckpoints()],
            **settings,
        )
    except (ValueError, MisconfigurationException) as error:
        raise ValueError(
            f"--accelerator {machine.accelerator} --devices {machine.devices} --strategy {machine.strategy} "
            f"--precision {machine.precision} does not work here: {error}"
        ) from error


def silence() -> None:
    """Keep what is not for users off the console: QUIET_MESSAGES and QUIET_WARNINGS, nothing else."""
    for pattern in QUIET_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_for_users)  # adding it twice makes no difference


def _is_for_users(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(QUIET_MESSAGES)


def is_first_process() -> bool:
    """Whether this process is rank 0 of the run, before or after the process group exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


say = rank_zero_only(print)
"""As `print`, once for all processes of the run."""


def from_first_process(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; ask in all of them together, after a Trainer has run."""
    found: list[Any] = [make() if is_first_process() else None]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(found)
    return found[0]


def make_asking_trainer(machine: MachineOptions, **keywords: Any) -> Trainer:
    """A Trainer whose `test` asks attribution methods for maps.

    They may take gradients, and long, so that its processes wait for each other longer than Lightning's half an hour.
    """
    return make_trainer(machine, patient=True, inference_mode=False, **keywords)


def uses_gpu(machine: MachineOptions) -> bool:
    """Whether the run is on CUDA devices."""
    return machine.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def precision_of(machine: MachineOptions) -> Any:
    """`auto` -> `bf16-mixed` if the processor computes bf16 natively, else `32-true`; a short name -> its long one."""
    if machine.precision != "auto":
        return LONG_NAMES.get(machine.precision, machine.precision)
    return "bf16-mixed" if has_native_bf16(uses_gpu(machine)) else "32-true"


def has_native_bf16(on_gpu: bool) -> bool:
    """Whether bf16 is fast: Ampere and newer GPUs, CPUs with AVX512-BF16 or AMX (emulation is slower than float32)."""
    if on_gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
