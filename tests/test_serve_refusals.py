"""A refusal arrives, whatever the client sends meanwhile, and no sender holds the server: on real sockets."""

import socket
import time
from contextlib import ExitStack, contextmanager
from threading import Thread

import pytest

pytest.importorskip("uvicorn", reason="uvicorn comes with gradio, in the extra `serve`")

import uvicorn

from explainer.serve import refusals
from explainer.serve.guard import FRAME, MOST_JSON, Guard, Rules
from explainer.serve.server import listening

SECONDS = 60
"""That a busy machine may take for anything."""
UPLOAD = 300_000
"""Bytes of a file that is taken."""
NOT_SERVED = b"The page does not need this, so it is not served."
HOW_LONG = b"Say how long the message is."


async def application(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a guard with nothing but a stub behind it is served."""
    guard = Guard(application, Rules(tmp_path_factory.mktemp("kept"), UPLOAD, None))
    config = uvicorn.Config(guard, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with listening("127.0.0.1", 0) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def patience(monkeypatch):
    """Sets it."""
    return lambda seconds: monkeypatch.setattr(refusals, "PATIENCE", seconds)


@contextmanager
def asked(place, *fields, path="/nothing"):
    """A connection on which the head of a request was sent."""
    with socket.create_connection(place[:2], timeout=SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else small pieces wait for each other
        head = [f"POST {path} HTTP/1.1", "Host: x", *fields]
        client.sendall("\r\n".join([*head, "", ""]).encode())
        yield client


def heard(client, text=None):
    """What comes: until the text is there or, without one, until the end; a reset is an end, too."""
    said = b""
    while text is None or text not in said:
        try:
            piece = client.recv(65_536)
        except ConnectionError:
            return said + b" RESET"
        if not piece:
            break
        said += piece
    return said


def chunk(content):
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.mark.parametrize("size", [0, 2, 5_000, 200_000, UPLOAD + FRAME])
def test_no_refusal_of_a_short_message_is_lost_though_it_is_read_only_after_all_was_sent(place, size):
    half = b"x" * (size // 2)
    for _ in range(60):
        with asked(place, f"Content-Length: {size}") as client:
            for piece in (half, half):
                client.sendall(piece)
                time.sleep(0.001)  # within which a server that does not wait has closed the connection
            said = heard(client)
        assert said.startswith(b"HTTP/1.1 404") and said.endswith(NOT_SERVED)


def test_a_refused_message_of_no_announced_length_is_read_to_its_end(place):
    for _ in range(60):
        with asked(place, "Transfer-Encoding: chunked", path="/gradio_api/upload") as client:
            for _ in range(20):
                client.sendall(chunk(b"x" * 4000))
            client.sendall(chunk(b""))
            said = heard(client)
        assert said.startswith(b"HTTP/1.1 411") and said.endswith(HOW_LONG)


def test_a_message_that_was_read_before_it_is_refused_is_not_waited_for_again(place, patience):
    patience(10 * SECONDS)
    with asked(place, "Content-Length: 7", path="/gradio_api/queue/join") as client:
        client.sendall(b"no json")
        assert heard(client).endswith(b"This is no JSON.")


def test_a_request_without_a_message_is_not_waited_for(place, patience):
    patience(10 * SECONDS)
    with socket.create_connection(place[:2], timeout=SECONDS) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert heard(client).endswith(NOT_SERVED)


@pytest.mark.parametrize("kind", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_slow_sender_is_answered_at_once_and_waited_for_no_longer_than_patience(place, patience, kind):
    patience(0.3)
    with asked(place, kind) as client:
        assert heard(client, NOT_SERVED).endswith(NOT_SERVED)
        start = time.monotonic()
        for _ in range(1000):  # a piece that keeps the message alive, but brings it to no end
            try:
                client.sendall(b"1" if "Length" in kind else chunk(b"1"))
            except ConnectionError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("the sender may go on for ever")
        assert time.monotonic() - start > 0.2


def test_an_endless_sender_is_cut_off_after_as_much_as_a_file_may_have(place, patience):
    patience(10 * SECONDS)
    buffers = 16_000_000  # of both ends
    sent, piece = 0, chunk(b"x" * 60_000)
    with asked(place, "Transfer-Encoding: chunked") as client, pytest.raises(ConnectionError):
        while sent < MOST_JSON + 2 * buffers:
            client.sendall(piece)
            sent += len(piece)
    assert MOST_JSON < sent < MOST_JSON + buffers


def test_a_message_that_says_it_is_long_is_refused_at_once_and_not_waited_for(place, patience):
    patience(10 * SECONDS)
    with asked(place, f"Content-Length: {MOST_JSON + 1}") as client:
        assert heard(client).endswith(NOT_SERVED)


def test_who_asks_first_is_not_told_to_go_on(place, patience):
    patience(10 * SECONDS)
    with asked(place, "Content-Length: 1000", "Expect: 100-continue") as client:
        said = heard(client)
    assert said.endswith(NOT_SERVED) and b"100 Continue" not in said


def test_slow_senders_keep_nobody_waiting(place, patience):
    patience(10 * SECONDS)
    with ExitStack() as slow:
        for _ in range(50):
            heard(slow.enter_context(asked(place, "Content-Length: 1000")), NOT_SERVED)
        with asked(place, "Content-Length: 2", path="/gradio_api/reset") as client:
            client.sendall(b"{}")
            assert heard(client, b"done").endswith(b"done")
