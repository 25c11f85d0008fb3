"""What an adapter of another library is: our method, set to the very task that ours solves, as that library has it.

B images, K channels, H×W pixels; h×w cells of a layer.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Attribute = Callable[[Tensor, Tensor], Tensor]
"""(image [B,3,H,W], target [B]) -> maps [B,H,W], or [B,h,w] where a library leaves them at the layer's size."""

Adapter = Callable[[Any, nn.Module], Attribute]
"""(our method, a copy of its classifier to do with as one likes) -> the library's.

Our method's options are taken over: pixels, baseline, window, steps, draws and targets are ours, logits where ours are,
and passes are as large. Where a definition differs nevertheless, the adapter's docstring says how.

Raises:
    NoPeer: if the library has nothing of the kind.
    ImportError: if it is not installed.
"""


class NoPeer(ValueError):
    """The library has nothing that does what our method's options ask for."""
