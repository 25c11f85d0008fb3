"""Attributions for sequences of tokens, e.g. the words of a text: which of them raise the score of any function."""

from explainer.sequences.methods import TokenMethod, TokenPAMI, TokenPAMIWindow, TokenRISE
from explainer.sequences.parts import phrases, words

__all__ = ["TokenMethod", "TokenPAMI", "TokenPAMIWindow", "TokenRISE", "phrases", "words"]
