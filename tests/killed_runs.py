"""Trains one run that is killed with SIGKILL at every delicate moment; tests start it in a process of its own.

`python killed_runs.py OUTPUT plain|taught`. Each start is a fork of a process that has imported everything but
computed nothing.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from small_runs import TEACHERS, arguments

import train
from explainer.distillation import stage
from explainer.distillation.stage import TeacherStage
from explainer.finetune import ExplanandumModule
from explainer.module import ExplainerModule


def die():
    """What `kill -9` does: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(module, method, epoch, batch):
    """Die before a step."""
    original = getattr(module, method)

    def step(self, data, index):
        if (self.current_epoch, index) == (epoch, batch):
            die()
        return original(self, data, index)

    setattr(module, method, step)


def within_checkpoint(name, epoch):
    """Die when half of a checkpoint is written."""
    original = torch.save

    def save(checkpoint, path):
        original(checkpoint, path)
        if name in Path(path).name and checkpoint["epoch"] == epoch:
            os.truncate(path, Path(path).stat().st_size // 2)
            die()

    torch.save = save


def before_the_summary():
    """Die when the training is over, but not written down as such."""
    original = train.write_whole

    def write(file, text):
        if file.name == "summary.json":
            die()
        original(file, text)

    train.write_whole = write


MOMENTS = {
    "explanandum, in its second epoch": lambda: before(ExplanandumModule, "training_step", 1, 1),
    "explanandum, half of last.ckpt": lambda: within_checkpoint("last", 1),
    "explanandum, scoring it": lambda: before(ExplanandumModule, "test_step", 2, 0),
    "first step of the Explainer": lambda: before(ExplainerModule, "training_step", 0, 0),
    "first epoch, half of last.ckpt": lambda: within_checkpoint("last", 0),
    "second epoch, third step": lambda: before(ExplainerModule, "training_step", 1, 2),
    "second epoch, half of best.ckpt": lambda: within_checkpoint("best", 1),
    "second epoch, half of last.ckpt": lambda: within_checkpoint("last", 1),
    "third epoch, validation": lambda: before(ExplainerModule, "validation_step", 2, 1),
    "before the summary": before_the_summary,
}


def while_asked(batch):
    """Die before a batch of the images that teachers are asked about; those of a batch are written at once."""
    stage.IMAGES_A_SHARD = 8
    before(TeacherStage, "test_step", 0, batch)


TAUGHT_MOMENTS = {
    "teachers, third batch": lambda: while_asked(2),
    "teachers, second batch of what was left": lambda: while_asked(1),
    "second epoch, third step": MOMENTS["second epoch, third step"],
    "second epoch, half of last.ckpt": MOMENTS["second epoch, half of last.ckpt"],
    "before the summary": before_the_summary,
}


def main(output, moments, *more):
    """Kill at each moment and go on; the last start is left to the caller. Prints the moments that were hit."""
    run = output / "run"
    hit = []
    for moment, arrange in moments.items():
        child = os.fork()
        if child == 0:
            arrange()
            train.main(["--resume", str(run)] if run.exists() else arguments(output, *more))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            hit.append(moment)
    print("HIT" + json.dumps(hit))


if __name__ == "__main__":
    folder, kind = sys.argv[1:]
    main(Path(folder), *{"plain": (MOMENTS,), "taught": (TAUGHT_MOMENTS, *TEACHERS)}[kind])
