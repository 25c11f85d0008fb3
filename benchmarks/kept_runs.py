"""Runs of train.py that a benchmark makes, and finds again when it is started again."""

from collections.abc import Sequence

import train
from explainer.run_folder import RunFolder


def trained(folder: RunFolder, options: Sequence[str], more: Sequence[str] = ()) -> RunFolder:
    """The run of that folder, made or gone on with; `more` are options that may change meanwhile, e.g. --epochs."""
    if folder.config.is_file():
        return train.main(["--resume", str(folder.path), *more])
    return train.main([*options, *more, "--output", str(folder.path.parent), "--name", folder.path.name])
