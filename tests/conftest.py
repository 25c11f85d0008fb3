"""Fixtures of more than one test file."""

import pytest
from small_runs import arguments

import train


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a finished run that nothing disturbed; not to be changed."""
    return train.main(arguments(tmp_path_factory.mktemp("runs"))).path
