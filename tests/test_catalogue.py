"""What `--list_methods` says: every method and every option, within the width of a terminal."""

from itertools import takewhile

import pytest

import evaluate
from explainer.attribution import METHODS
from explainer.attribution.catalogue import details, overview
from explainer.attribution.spec import in_yaml, options_of

EVERY = pytest.mark.parametrize("name", METHODS)
WIDTHS = pytest.mark.parametrize("width", [60, 80, 120])


def answer(capsys, *names):
    """What the program prints, and its exit status."""
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--list_methods", *names])
    return stopped.value.code, capsys.readouterr()


def squeezed(text):
    """The text without line breaks and indents."""
    return " ".join(text.split())


@WIDTHS
def test_no_line_is_longer_than_the_terminal_is_wide(width):
    for text in (overview(width), *(details(name, width) for name in METHODS)):
        longest = max(text.splitlines(), key=len)
        assert len(longest) <= width or " " not in longest.strip()
    assert max(map(len, overview(width).splitlines())) > width - 10  # and what is there is used


@EVERY
def test_the_overview_has_a_methods_source_needs_cost_and_defaults(name):
    method = METHODS[name]
    _, _, after = f"\n{overview(80)}".partition(f"\n{name}\n")
    entry = squeezed("".join(takewhile(lambda line: line.startswith(" "), after.splitlines(keepends=True))))
    for fact in (method.paper, method.needs, method.passes):
        assert squeezed(fact) in entry
    for option, default in options_of(name).items():
        assert f"{option}={in_yaml(default)}" in entry


@EVERY
def test_every_option_is_explained(name):
    lines = details(name, 100).splitlines()
    for option, default in options_of(name).items():
        (place,) = (index for index, line in enumerate(lines) if line.startswith(f"    {option}={in_yaml(default)}"))
        assert lines[place + 1].startswith(" " * 8)


def test_the_other_words_that_an_option_can_be_are_named():
    assert "\n    masking=blur (or black, white)\n" in details("pami", 80)
    assert "\n    target_layer=null\n" in details("grad_cam_pp", 80)


def test_options_that_are_inherited_have_their_meaning_from_where_they_are_from():
    def meaning(name):
        return details(name, 80).partition("target_layer=null\n")[2]

    assert meaning("wgrad_cam") == meaning("grad_cam")


def test_methods_are_explained_without_a_run(capsys):
    status, said = answer(capsys, "rise", "center")
    assert status == 0
    assert said.out.startswith("rise\n")
    assert "\n\ncenter\n" in said.out
    assert "\n    masks=4000\n" in said.out


def test_an_unknown_method_is_an_error_that_names_the_known_ones(capsys):
    status, said = answer(capsys, "rize")
    assert status == 2
    assert "Unknown method 'rize'; choose one of: explainer," in said.err
