"""How train.py, evaluate.py and explain.py talk to a command line: one clean line for an error, a hint after Ctrl-C."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.utilities.exceptions import SIGTERMException

from explainer.machine import is_first_process

OURS = {
    *(
        "__main__",
        "classifier_options",
        "command_line",
        "datamodules",
        "evaluate",
        "evaluate_options",
        "evaluate_plan",
        "evaluate_subject",
    ),
    *("explain", "explain_options", "explain_subject", "explainer", "train"),
}
INSTALLED = "explainer-"
"""Beginning of the programs' names where the package is installed."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + the signal's number."""
TERMINATED = 143


def started_as(program: str) -> str:
    """How the user started this program, or would start another one of ours.

    Args:
        program: train, evaluate or explain.

    Returns:
        `python train.py`, or `explainer-train` where that is installed and was used.
    """
    return f"{INSTALLED}{program}" if Path(sys.argv[0]).name.startswith(INSTALLED) else f"python {program}.py"


def run_command(main: Callable[[], object]) -> None:
    """Run a program's `main`; a mistake of the user becomes one line `error: …` and exit status 1.

    A fault of the program keeps its traceback, and EXPLAINER_TRACEBACK=1 shows all of them.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("EXPLAINER_TRACEBACK") == "1" or not is_users_error(error):
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def resume_hint(way: str) -> Iterator[None]:
    """Say how to go on if the program is interrupted within."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns Ctrl-C into SystemExit
        if is_first_process():
            print(f"\nStopped. Go on with {way}", file=sys.stderr)
        sys.exit(TERMINATED if isinstance(stop, SIGTERMException) else INTERRUPTED)


def is_users_error(error: BaseException) -> bool:
    """Whether a file or disk is to blame, or our own code refused a value, with a message for the user."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, ValueError | ArithmeticError | ImportError) and _raised_in(error) in OURS


def message_of(error: BaseException) -> str:
    """The message on one line, without Python's error number."""
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        message = str(error)
    return " ".join(message.split())


def _raised_in(error: BaseException) -> str:
    """The top-level module whose code raised it."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step.tb_frame.f_globals.get("__name__", "").split(".")[0] if step else ""
