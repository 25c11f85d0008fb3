"""What the page's command line can say, and what is looked at before anything is loaded."""

from dataclasses import dataclass
from importlib.util import find_spec

MISSING = (
    'The page needs Gradio, which is not installed; install it with `pip install "explainer[serve]"` (in a clone: '
    '`pip install --constraint constraints.txt --editable ".[serve]"`).'
)
MEGA = 1_000_000


@dataclass
class ServeOptions:
    """The local page, with --serve.

    Args:
        host: Address that the page is served at; the default is for this machine alone.
        port: Its port; 0 takes one that is free.
        max_upload_mb: Largest file that is taken.
        max_megapixels: Largest image that is unpacked.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_mb: int = 20
    max_megapixels: int = 25

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            ValueError: with the range.
        """
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"--port must be from 0 to 65535, got {self.port}.")
        for name in ("max_upload_mb", "max_megapixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}.")

    @property
    def most_bytes(self) -> int:
        """Of a file."""
        return self.max_upload_mb * MEGA

    @property
    def most_pixels(self) -> int:
        """Of an image."""
        return self.max_megapixels * MEGA


def require_gradio() -> None:
    """Look for it before a network is loaded.

    Raises:
        ImportError: with the remedy.
    """
    if find_spec("gradio") is None:
        raise ImportError(MISSING)
