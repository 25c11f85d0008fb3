"""What autograd has recorded: the steps between image and logits, and what depends on the image."""

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.autograd.graph import Node


def operations(logits: Tensor) -> Iterator[Node]:
    """Every differentiable operation that the logits come from, as the autograd graph knows them."""
    seen: set[Node] = set()
    waiting = [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            yield node


class Dependence:
    """Tells what depends on the image, or on anything else that is named as a source.

    That a value wants a gradient says no such thing where a network's parameters want some, too, as those of a network
    behind a score function may.

    Args:
        sources: tensors without a history that want gradients; there may be more of them later.
    """

    def __init__(self, sources: Sequence[Tensor]) -> None:
        self._sources = sources
        self._known: dict[Node, bool] = {}

    def __call__(self, value: object) -> bool:
        """Whether a value, of any type, depends on a source."""
        if not isinstance(value, Tensor) or not value.requires_grad:
            return False
        return self._is_source(value) if value.grad_fn is None else self.reaches(value.grad_fn)

    def reaches(self, step: Node) -> bool:
        """Whether a step's result depends on a source."""
        waiting = [step]
        while waiting:  # a loop, as graphs may be deeper than Python's stack
            node = waiting[-1]
            before = [each for each, _ in node.next_functions if each is not None]
            unknown = [each for each in before if each not in self._known]
            if unknown:
                waiting += unknown
            else:
                self._known[node] = any(self._known[each] for each in before) or self._is_source(_leaf(node))
                waiting.pop()
        return self._known[step]

    def forget(self) -> None:
        """Let go of the steps that were looked at."""
        self._known.clear()

    def _is_source(self, value: object) -> bool:
        return any(value is source for source in self._sources)


def _leaf(step: Node) -> object:
    """The tensor without a history at which a path of the graph ends here."""
    return getattr(step, "variable", None)
