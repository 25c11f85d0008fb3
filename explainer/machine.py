"""Where and how fast: precision, devices, and the one way a Trainer is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only


@dataclass
class MachineOptions:
    """The hardware that a run uses.

    Args:
        precision: auto picks bf16-mixed where the processor has it natively, else 32.
        accelerator: auto, cpu, gpu …, as Lightning names them.
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


def make_trainer(machine: MachineOptions, **keywords: Any) -> Trainer:
    """A Trainer on the machine; SyncBatchNorm on several GPUs, the data set's own samplers, no default logger."""
    return Trainer(
        accelerator=machine.accelerator,
        # On a CPU "auto" means one process: more would only compete for the same cores.
        devices=1 if machine.devices == "auto" and not uses_gpu(machine) else machine.devices,
        num_nodes=machine.num_nodes,
        strategy=machine.strategy,
        precision=precision_of(machine),
        sync_batchnorm=uses_gpu(machine),
        use_distributed_sampler=False,
        **{"num_sanity_val_steps": 0, "logger": False, "enable_model_summary": False, **keywords},
    )


def is_first_process() -> bool:
    """Whether this process is rank 0 of the run, before or after the process group exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


def uses_gpu(machine: MachineOptions) -> bool:
    """Whether the run is on CUDA devices."""
    return machine.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def precision_of(machine: MachineOptions) -> Any:
    """`auto` -> `bf16-mixed` if the processor computes bf16 natively, else `32-true`; anything else as it is."""
    if machine.precision != "auto":
        return machine.precision
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
