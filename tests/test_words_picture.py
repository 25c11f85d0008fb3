"""The picture of coloured words: colours mean numbers, the scale says which.

H×W pixels.
"""

import numpy as np
import pytest

from explainer.report import words
from explainer.report.words import Scale, WordRow, WordText, colour_of, draw_words, readable_on

SCALE = Scale(0, 1, "negative", "positive")
WHITE = (255, 255, 255)


def text(*values, rows=1):
    names = [f"word{index}" for index in range(len(values))]
    return WordText("a title", names, [WordRow(f"method {row}", values) for row in range(rows)])


def colours(picture):
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def lightness(colour):
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def test_colours_run_from_orange_over_almost_white_to_purple():
    low, middle, high = (colour_of(value, SCALE) for value in (0, 0.5, 1))
    assert low[0] > low[1] > low[2]
    assert min(middle) > 240
    assert high[2] > high[0] > high[1]


def test_colours_are_the_darker_the_farther_from_the_centre():
    shades = [lightness(colour_of(value, SCALE)) for value in np.linspace(0, 1, 21)]
    assert shades[:11] == sorted(shades[:11])
    assert shades[10:] == sorted(shades[10:], reverse=True)


def test_both_sides_differ_for_those_who_see_no_red_or_no_green():
    # What protanopes and deuteranopes tell apart is blue against yellow: blue less the mean of red and green.
    for distance in (0.2, 0.3, 0.5):
        low, high = (np.array(colour_of(0.5 + sign * distance, SCALE), float) for sign in (-1, 1))
        assert (high[2] - high[:2].mean()) - (low[2] - low[:2].mean()) > 50


def test_numbers_beyond_the_scale_look_like_its_ends():
    assert colour_of(-3, SCALE) == colour_of(0, SCALE)
    assert colour_of(7, SCALE) == colour_of(1, SCALE)
    assert colour_of(15, Scale(10, 20)) == colour_of(0.5, SCALE)


def test_letters_stand_out_from_every_colour():
    for value in np.linspace(0, 1, 41):
        colour = colour_of(value, SCALE)
        assert abs(lightness(colour) - (0 if readable_on(colour) == "black" else 255)) > 90


def test_a_words_box_has_its_numbers_colour():
    found = colours(draw_words([text(0.1, 0.8)], SCALE)[: -words.FOOTER])
    assert {colour_of(0.1, SCALE), colour_of(0.8, SCALE)} <= found
    assert colour_of(0.3, SCALE) not in found


def test_the_scale_has_the_colours_from_end_to_end():
    found = colours(draw_words([text(0.5)], SCALE)[-words.FOOTER :])
    assert {colour_of(0, SCALE), colour_of(1, SCALE)} <= found


def test_each_method_has_a_row_of_its_own():
    heights = [draw_words([text(0.5, rows=rows)], SCALE).shape[0] for rows in (1, 2, 3)]
    assert np.diff(heights).tolist() == [words.LINE, words.LINE]


def test_a_long_text_goes_on_in_the_next_line_and_no_word_is_lost():
    picture = draw_words([text(*np.linspace(0, 1, 40))], SCALE)
    assert picture.shape[1] <= words.LABEL + words.MOST_WIDTH
    assert {colour_of(value, SCALE) for value in np.linspace(0, 1, 40)} <= colours(picture[: -words.FOOTER])
    assert picture.shape[0] > draw_words([text(0.5)], SCALE).shape[0]


def test_nothing_is_drawn_beyond_the_right_border():
    picture = draw_words([text(*[0.0] * 9), text(1.0)], SCALE)
    assert colours(picture[:, -1:]) == {WHITE}


def test_as_many_numbers_as_words_are_needed():
    with pytest.raises(ValueError, match="shorter|longer"):
        draw_words([WordText("", ["one", "two"], [WordRow("method", [0.5])])], SCALE)
