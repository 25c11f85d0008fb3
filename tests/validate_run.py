"""Validates the Explainer of a run on any number of processes; tests start it.

`python validate_run.py RUN DEVICES OUTPUT.json`.
"""

import json
import sys
from pathlib import Path

import train
from explainer.explanandum import Explanandum
from explainer.machine import make_trainer
from explainer.module import ExplainerModule
from explainer.run_folder import RunFolder
from programs.recipes import parse
from programs.train_options import make_datamodule


def validate(run, devices):
    """Every metric of the validation images, and whether this is the first process."""
    folder = RunFolder(Path(run))
    options, _ = parse(["--config", str(folder.config)])
    options.machine.devices = devices
    options.machine.strategy = "ddp" if devices > 1 else "auto"
    options.data.seed = options.run.seed
    options.data.batch_size = 4  # the last batches of the two processes differ in size
    options.data.mean, options.data.std = options.classifier.normalisation(options.run.explanandum)
    explanandum, datamodule = Explanandum.load(folder.explanandum), make_datamodule(options)
    train.prepare_lessons(options, datamodule, explanandum)
    parts = {"objective": train.make_objective(options), "lesson": train.make_lesson(options)}
    module = ExplainerModule(folder.load_explainer(), explanandum, **parts)
    trainer = make_trainer(options.machine)
    metrics = trainer.validate(module, datamodule=datamodule, verbose=False)[0]
    return metrics, trainer.is_global_zero


if __name__ == "__main__":
    values, is_first = validate(sys.argv[1], int(sys.argv[2]))
    if is_first:
        Path(sys.argv[3]).write_text(json.dumps(values))
