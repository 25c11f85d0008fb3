"""Starts evaluate.py and kills it with SIGKILL in the middle of a line of its records; test_evaluate.py runs it.

`python killed_evaluation.py ARGUMENTS`.
"""

import os
import signal
import sys

import evaluate
from explainer.evaluation.records import Records

LINES = 7
"""Records that are written whole."""


def main(arguments):
    """Evaluate, and die while the eighth record is being written."""
    original, written = Records.add, []

    def add(self, *values):
        if len(written) == LINES:
            with (self.folder / f"rank{self.rank}.jsonl").open("a") as opened:
                opened.write('[1.0, "half a li')
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(values)
        original(self, *values)

    Records.add = add
    evaluate.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
