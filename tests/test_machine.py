"""`--precision auto` is bf16 exactly where the processor has it natively."""

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy

from explainer import machine
from explainer.machine import PATIENCE, MachineOptions, has_native_bf16, make_trainer, precision_of


@pytest.fixture
def processor(monkeypatch):
    """A machine with these processor flags (None: not Linux), and with a GPU of these powers or none."""
    original = machine.Path.read_text

    def choose(flags=None, gpu=None):
        def read_text(path, *arguments, **keywords):
            if str(path) != "/proc/cpuinfo":
                return original(path, *arguments, **keywords)
            if flags is None:
                raise FileNotFoundError(path)
            return f"model name\t: A processor\nflags\t\t: fpu sse2 {flags}\n"

        def is_bf16_supported(*, including_emulation):
            assert not including_emulation, "emulation is slower than float32"
            return gpu == "native bf16"

        monkeypatch.setattr(machine.Path, "read_text", read_text)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)

    return choose


CPUS = pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("avx2 avx512f avx512_bf16", True),
        ("avx2 amx_bf16 amx_tile amx_int8", True),
        ("avx2 avx512f avx512bw avx512_vnni", False),
        ("avx2 f16c", False),
        (None, False),
    ],
)


@CPUS
def test_a_cpu_has_native_bf16_if_its_flags_say_so(processor, flags, native):
    processor(flags)
    assert has_native_bf16(on_gpu=False) is native
    for accelerator in ("auto", "cpu"):
        expected = "bf16-mixed" if native else "32-true"
        assert precision_of(MachineOptions(accelerator=accelerator)) == expected


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
@pytest.mark.parametrize(("gpu", "expected"), [("native bf16", "bf16-mixed"), ("older", "32-true")])
def test_on_a_gpu_its_own_powers_count(processor, gpu, expected, accelerator):
    processor("avx2" if gpu == "native bf16" else "avx512_bf16", gpu)  # a processor that is the opposite
    assert precision_of(MachineOptions(accelerator=accelerator)) == expected


def test_a_gpu_that_is_not_used_does_not_count(processor):
    processor("avx2", gpu="native bf16")
    assert precision_of(MachineOptions(accelerator="cpu")) == "32-true"


@pytest.mark.parametrize(
    ("asked", "taken"),
    [("32-true", "32-true"), ("bf16-mixed", "bf16-mixed"), ("32", "32-true"), ("bf16", "bf16-mixed")],
)
def test_a_precision_that_is_asked_for_is_taken_under_its_long_name(processor, asked, taken):
    processor("avx512_bf16")
    assert precision_of(MachineOptions(precision=asked)) == taken


@CPUS
def test_the_trainer_runs_in_it(processor, flags, native):
    processor(flags)
    trainer = make_trainer(MachineOptions(accelerator="cpu"), enable_checkpointing=False)
    assert trainer.precision == ("bf16-mixed" if native else "32-true")
    assert trainer.num_devices == 1


@pytest.mark.parametrize("strategy", ["ddp", "auto"])
def test_several_processes_wait_a_day_where_they_are_told_to(strategy):
    several = MachineOptions(accelerator="cpu", devices=2, strategy=strategy)
    patient, other = (make_trainer(several, patient=told).strategy for told in (True, False))
    assert isinstance(patient, DDPStrategy) and isinstance(other, DDPStrategy)
    assert patient._timeout == PATIENCE > other._timeout
    assert not isinstance(make_trainer(MachineOptions(accelerator="cpu"), patient=True).strategy, DDPStrategy)
