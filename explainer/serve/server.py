"""Serving the page: at one address, with nothing of the surroundings' Gradio settings, until Ctrl-C."""

import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from explainer.entry import TERMINATED
from explainer.serve.guard import Guard, Rules
from explainer.serve.options import ServeOptions
from explainer.serve.overlays import script, style
from explainer.serve.page import Choice, Desk, make_page
from explainer.serve.studio import Studio

if TYPE_CHECKING:
    import uvicorn

GRADIO = "GRADIO_"
"""Beginning of the environment's variables that Gradio follows."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
GOODBYE = 2
"""Seconds that open connections get at the end."""


def serve(studio: Studio, choice: Choice, options: ServeOptions, title: str) -> None:
    """Serve the page until Ctrl-C, or until the process is told to end; then nothing is left of what was uploaded.

    Args:
        studio: that does the work.
        choice: when the page opens.
        options: where, and how much is taken.
        title: a line about the classifier.

    Raises:
        OSError: if the address can't be listened at.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # else the folder would stay
    with listening(options.host, options.port) as listener, prepared(studio, choice, options, title) as server:
        if not is_loopback(options.host):
            print(
                f"warning: {options.host} is open to other machines, and the page asks nobody for a password: whoever "
                "reaches it can use this classifier and this processor. Leave --host out to stay on this machine.",
                flush=True,
            )
        print(f"The page is at {address_of(listener)} (Ctrl-C ends it).", flush=True)
        server.run(sockets=[listener])


@contextmanager
def prepared(studio: Studio, choice: Choice, options: ServeOptions, title: str) -> Iterator["uvicorn.Server"]:
    """A server of the page that is ready to run.

    At the end its folder of uploads and downloads vanishes, and what is being explained is broken off.
    """
    with TemporaryDirectory(prefix="explainer-page-") as name, _gradio_settings(name):
        import uvicorn

        folder = Path(name).resolve()
        hosts = LOOPBACK_NAMES if is_loopback(options.host) else None
        desk = Desk(studio, choice, folder)
        guard = Guard(_application(desk, title, options), Rules(folder, options.most_bytes, hosts))
        config = uvicorn.Config(
            guard, log_level="warning", access_log=False, proxy_headers=False, timeout_graceful_shutdown=GOODBYE
        )
        server = uvicorn.Server(config)
        try:
            with _silent_end(server):
                yield server
        finally:
            desk.runs.stop_all()  # the process ends with its last thread


@contextmanager
def _silent_end(server: "uvicorn.Server") -> Iterator[None]:
    """At the end the pages that are open are cut off, which is no error."""
    log = logging.getLogger("uvicorn.error")

    def until_then(_: logging.LogRecord) -> bool:
        return not server.should_exit

    log.addFilter(until_then)
    try:
        yield
    finally:
        log.removeFilter(until_then)


def _application(desk: Desk, title: str, options: ServeOptions) -> Any:
    import gradio as gr
    from fastapi import FastAPI

    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        make_page(desk, title),
        path="/",
        max_file_size=options.most_bytes,
        allowed_paths=[],
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=style(),
        head=script(),
    )


@contextmanager
def _gradio_settings(folder: str) -> Iterator[None]:
    """Gradio reads many settings from the environment, some of which would open what is closed here."""
    before = {name: value for name, value in os.environ.items() if name.startswith(GRADIO)}
    ours = {"TEMP_DIR": folder, "EXAMPLES_CACHE": folder, "ANALYTICS_ENABLED": "False", "RUN_HISTORY": "False"}
    _replace_settings({GRADIO + name: value for name, value in ours.items()})
    try:
        yield
    finally:
        _replace_settings(before)


def _replace_settings(settings: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(GRADIO)]:
        del os.environ[name]
    os.environ.update(settings)


def listening(host: str, port: int) -> socket.socket:
    """A socket at the address, before a browser is sent there.

    Raises:
        OSError: if it is taken, or no address of this machine; saying what to do.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((place[0], port), family=family)
    except OSError as error:
        raise OSError(
            f"Cannot serve at {host}, port {port} ({error.strerror or error}); name another --port (0 takes a "
            "free one), or another --host."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # `listening` tells
    return all(ipaddress.ip_address(place[0]).is_loopback for *_, place in found)


def address_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
