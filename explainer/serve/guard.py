"""What stands before Gradio: only what the page needs comes through, and no path or address of a client's choice.

Gradio's own programming interface can do more than this page: fetch addresses, serve files, take files of any number. A
request that the page would not send is refused here, before Gradio looks at it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from explainer.serve.refusals import Application, Body, Message, Receive, Refusal, Send, answer

API = "/gradio_api"
FILE, UPLOAD = f"{API}/file=", f"{API}/upload"
READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/[\w./-]+|/gradio_api/"
    r"(info|app_id|startup-events|theme\.css|queue/data|upload_progress|heartbeat/\w+|file=.+)"
)
"""Paths that are asked for, at most."""
SENT_TO = {UPLOAD, f"{API}/queue/join", f"{API}/cancel", f"{API}/reset"}
MOST_JSON = 1_000_000
"""Bytes of a message that is no file."""
FRAME = 10_000
"""Bytes that a form adds to the file in it."""
KEPT_FILES = 20
"""Uploads of the largest size that are kept at most."""
DOWNLOADS = "downloads"
"""Folder in that of the uploads, of what is no upload."""
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""With every answer: the browser, too, asks nobody else for anything."""


@dataclass(frozen=True)
class Rules:
    """What is let through.

    Args:
        folder: of the files that were uploaded or made for download; no other file is read or served.
        most_bytes: of an upload.
        hosts: names of this machine, by one of which it must be called; None allows any. (Another site's name that
            leads to this machine would let that site's scripts use the page.)
    """

    folder: Path
    most_bytes: int
    hosts: frozenset[str] | None


class Guard:
    """An ASGI application before another one.

    Args:
        app: that answers what is let through.
        rules: what is let through.
    """

    def __init__(self, app: Application, rules: Rules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": f"{scope['type']}.close"})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = Body(receive)
        try:
            checked = await self._checked(scope, headers, body)
        except Refusal as refusal:
            await answer(refusal, headers, body, _with_headers(send), max(self._most_upload, MOST_JSON))
            return
        await self.app(scope, checked, _with_headers(send))

    @property
    def _most_upload(self) -> int:
        return self.rules.most_bytes + FRAME

    async def _checked(self, scope: Message, headers: Mapping[str, str], body: Body) -> Receive:
        """How the application gets the body of a request that is let through.

        Raises:
            Refusal: of any other.
        """
        self._refuse_strangers(headers)
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and READ.fullmatch(path) and ".." not in path.split("/"):
            if path.startswith(FILE):
                self._refuse_file(path.removeprefix(FILE))
            if path == "/":
                scope["query_string"] = b""  # could ask for the kept state of another page
            return body
        if method == "POST" and path in SENT_TO:
            return await self._checked_body(path, headers, body)
        raise Refusal(404, "The page does not need this, so it is not served.")

    def _refuse_strangers(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self.rules.hosts is not None and _parts(f"//{host}").hostname not in self.rules.hosts:
            raise Refusal(421, f"This page is served to this machine only, not as '{host}'.")
        origin = headers.get("origin")
        if origin is not None and _parts(origin).netloc != host:
            raise Refusal(403, f"Another site, {origin}, can't use this page.")

    async def _checked_body(self, path: str, headers: Mapping[str, str], body: Body) -> Receive:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise Refusal(411, "Say how long the message is.")
        most = self._most_upload if path == UPLOAD else MOST_JSON
        if int(length) > most:
            raise Refusal(413, f"{int(length):,} bytes are too many; {most:,} are taken at most.")
        if path == UPLOAD:
            self._refuse_full_folder()
            return body
        content = await body.read(most)
        for place in _files_named_in(content):
            self._refuse_file(place)
        return _replayed(content, body)

    def _refuse_full_folder(self) -> None:
        folder = self.rules.folder
        kept = sum(size_of(one) for one in folder.iterdir() if one.name != DOWNLOADS)
        if kept + self.rules.most_bytes > KEPT_FILES * self.rules.most_bytes:
            raise Refusal(507, "Too many files are kept here already; they are removed within the hour.")

    def _refuse_file(self, place: Any) -> None:
        """Only what lies in the folder; a link in there counts as what it leads to."""
        try:
            inside = Path(place).resolve().is_relative_to(self.rules.folder.resolve())
        except (TypeError, ValueError, OSError):
            inside = False
        if not inside or "://" in place:
            raise Refusal(403, "This is no file that was uploaded here.")


def _parts(address: str) -> SplitResult:
    """Of an address; none of one that can't be, such as `//[`."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files in and below a folder."""
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def _files_named_in(body: bytes) -> Iterator[Any]:
    """Whatever Gradio could take for a file in a message.

    Raises:
        Refusal: if it is no message.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "This is no JSON.") from error
    parts = [message]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "path" in part:
                yield part["path"]
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _replayed(content: bytes, receive: Receive) -> Receive:
    """What was read already, once more; then whatever follows."""
    messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return sending
