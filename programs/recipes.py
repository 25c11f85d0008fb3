"""From train.py's command line to options: recipes in `configs/`, `--config` files, flags, and runs that go on.

Precedence: code default < recipe `configs/<dataset>_<explanandum>.yaml` < `--config FILE` < flag.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml

from explainer.distillation.options import DistillOptions
from explainer.machine import MachineOptions
from explainer.own_classifier import is_own, own_name
from explainer.run_folder import RunFolder
from programs.train_options import RunOptions, TrainOptions, make_parser, settled, to_options

CONFIGS = Path(__file__).parents[1] / "configs"
OWN_RECIPE = "own.yaml"
"""For classifiers of the user's own, whatever the data set."""
MAY_CHANGE = {"epochs", "patience", "stage", "data_root", "workers", "output", "name", "limit_test"}
MAY_CHANGE |= {item.name for item in fields(MachineOptions)}
"""What a resumed run may be told anew; with anything else changed its saved config would no longer repeat it."""
MAY_CHANGE_WITHIN = {"distill": {"cache", "batch_size", "shard"}}
"""Likewise within groups: where and how teacher maps are computed, not which."""


def parse(arguments: Sequence[str]) -> tuple[TrainOptions, str]:
    """Command line -> options, and the YAML text that alone gives the same options again.

    Raises:
        SystemExit: with status 2 and a message for anything that is not valid.
        ValueError: for a file that names code to run, which the command line itself does not name.
    """
    arguments = _config_files_first(arguments)
    resumed = _peek(arguments).resume
    if resumed:
        folder = RunFolder(Path(resumed))
        folder.read_config()  # its error says what a run folder is
        arguments = ["--config", str(folder.config), *arguments]
    asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)  # which shows the code's defaults
    # A resumed run has all options in its own file, but for those that are newer than the run.
    parser = make_parser(None if asks_for_help or resumed else find_recipe(arguments))
    namespace = parser.parse_args(arguments)
    options = to_options(namespace)
    if is_own(options.run.explanandum) and not _peek(arguments).explanandum:
        refuse_to_run(options.run.explanandum)
    # One-time wishes; whoever repeats the run has them no more.
    namespace.resume, namespace.refit, namespace.distill.cache_info = None, False, False
    namespace.distill.shard = DistillOptions.shard
    config = parser.dump(namespace, skip_unset=False)
    if resumed:
        saved = parser.dump(parser.parse_args(["--config", str(folder.config)]), skip_unset=False)
        refuse_changes(yaml.safe_load(saved), yaml.safe_load(config))
    return options, config


def refuse_to_run(code: str) -> NoReturn:
    """A file must not have code run that whoever starts the program has not named.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"The configuration has its classifier made by code, '{code}', which runs only if you name it. If you trust "
        f"it, add --explanandum {code}, with the path where it lies."
    )


def refuse_changes(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare a run's saved options with those it is to go on with.

    Raises:
        ValueError: naming the options that can't change.
    """
    changed = sorted(
        name
        for name, value in wanted.items()
        if name not in MAY_CHANGE and _fixed(name, saved.get(name)) != _fixed(name, value)
    )
    if changed:
        free = MAY_CHANGE | {f"{group}.{name}" for group, names in MAY_CHANGE_WITHIN.items() for name in names}
        raise ValueError(
            f"A resumed run keeps its {', '.join(changed)}; start a new run, or change only: {', '.join(sorted(free))}."
        )


def _fixed(name: str, value: Any) -> Any:
    """An option, or of a group what can't change; the user's own code may have moved."""
    if name == "explanandum":
        return own_name(value)
    free = MAY_CHANGE_WITHIN.get(name, set())
    return {key: item for key, item in value.items() if key not in free} if isinstance(value, dict) else value


def find_recipe(arguments: Sequence[str]) -> Path | None:
    """The recipe for the data set and classifier that the arguments (or files they name) choose; None if there is none.

    Raises:
        FileNotFoundError: if the recipes were not installed.
    """
    if not CONFIGS.is_dir():
        raise FileNotFoundError(f"No recipes at {CONFIGS}; install again, with `pip install .` in a clone.")
    peeked = _peek(arguments)
    chosen = {"dataset": RunOptions.dataset, "explanandum": RunOptions.explanandum}
    for file in peeked.config:
        content = _yaml(Path(file)) if Path(file).is_file() else {}
        chosen |= {key: content[key] for key in chosen if isinstance(content, dict) and key in content}
    chosen |= {key: getattr(peeked, key) for key in chosen if getattr(peeked, key)}
    classifier = settled(chosen["explanandum"], chosen["dataset"])
    name = OWN_RECIPE if is_own(classifier) else f"{chosen['dataset']}_{classifier}.yaml".replace(":", "-")
    recipe = CONFIGS / name
    return recipe if recipe.is_file() else None


def _yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no valid YAML: {error}") from error


def _config_files_first(arguments: Sequence[str]) -> list[str]:
    """The arguments reordered: to jsonargparse the last one wins, but a flag beats a file wherever it stands."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--config", action="append", default=[])
    try:
        known, others = peek.parse_known_args(arguments)
    except argparse.ArgumentError:  # `--config` without a file: the full parser will say so
        return list(arguments)
    return [*(part for file in known.config for part in ("--config", file)), *others]


def _peek(arguments: Sequence[str]) -> argparse.Namespace:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--dataset", "--explanandum", "--resume"):
        peek.add_argument(name)
    peek.add_argument("--config", action="append", default=[])
    try:
        return peek.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # e.g. an option without its value: the full parser will say so
        return argparse.Namespace(dataset=None, explanandum=None, resume=None, config=[])
