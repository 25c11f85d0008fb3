"""What is explained on the page ends soon after a click on Stop, when its visitor leaves, or when the server ends."""

import asyncio
import json
import time
import urllib.request
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from queue import Queue
from threading import Event, Thread
from threading import enumerate as enumerate_threads

import pytest
from PIL import Image
from toy_models import WindowNet, freeze

from explainer.attribution import METHODS, AttributionMethod
from explainer.serve import page, server
from explainer.serve.options import ServeOptions
from explainer.serve.overlays import overlays_html
from explainer.serve.runs import Runs
from explainer.serve.studio import STOPPED, Studio

SECONDS = 60
"""That a busy machine may take for anything."""


class Endless(AttributionMethod):
    """Asks the classifier for ever (but gives up one day, so that a test that fails ends)."""

    def __init__(self, explanandum):
        super().__init__(explanandum)
        self.asking = Event()

    def __call__(self, image, target):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            self.explanandum(image)
            self.asking.set()
        raise RuntimeError("was not stopped")


@pytest.fixture
def studio():
    explanandum = freeze(WindowNet())
    methods = {"center": METHODS["center"](explanandum), "endless": Endless(explanandum)}
    return Studio(explanandum, methods | {"gradient": METHODS["gradient"](explanandum)}, {}, most_pixels=10_000)


@pytest.fixture
def file(tmp_path):
    Image.new("RGB", (90, 45), "grey").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def reasons(opened):
    """Of each method, why classes have no map."""
    return {name: one.failures for name, one in opened.explanations.items()}


# The studio.


def test_what_was_finished_is_kept_and_the_rest_says_that_it_was_stopped(studio, file):
    endless, opened = studio.methods["endless"], studio.open(file)
    shown = studio.explain(opened, [0, 2], ["center", "endless", "gradient"], stop=endless.asking.is_set)
    assert reasons(shown) == {"center": {}, "endless": {0: STOPPED, 2: STOPPED}, "gradient": {0: STOPPED, 2: STOPPED}}
    assert set(shown.explanations["center"].maps) == {0, 2}
    assert overlays_html(shown).count(f"No map: {STOPPED}") == 4
    finished = studio.explain(shown, [0, 2], ["center", "gradient"])  # the studio goes on as if nothing had been
    assert finished.explanations["center"].maps[0] is shown.explanations["center"].maps[0]
    assert reasons(finished) == {"center": {}, "gradient": {}}


def test_what_a_method_said_before_stays_when_it_is_stopped_over_another_class(studio, file):
    before = studio.explain(studio.open(file), [0], ["gradient"])
    shown = studio.explain(before, [0, 1], ["gradient"], stop=lambda: True)
    assert set(shown.explanations["gradient"].maps) == {0}
    assert reasons(shown) == {"gradient": {1: STOPPED}}


def test_a_stopped_method_leaves_the_classifier_without_hooks(studio, file):
    studio.explain(studio.open(file), [0], ["endless"], stop=studio.methods["endless"].asking.is_set)
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in studio.explanandum.modules())


# Whose is what.


def test_a_visitor_stops_nobody_elses():
    runs = Runs()
    with runs.of("a") as first, runs.of("b") as second, runs.of("a") as third:
        assert not runs.stop("c")
        assert (first(), second(), third()) == (False, False, False)
        assert runs.stop("a")
        assert (first(), second(), third()) == (True, False, True)
        runs.stop_all()
        assert second()
    assert not runs.stop("a")


def test_what_begins_after_all_were_told_to_end_ends_as_well():
    runs = Runs()
    runs.stop_all()
    with runs.of("late") as stopped:
        assert stopped()


def test_a_stop_does_not_reach_what_begins_after_it():
    runs = Runs()
    with runs.of("a"):
        runs.stop("a")
    with runs.of("a") as later:
        assert not later()


# The server.


@contextmanager
def serving(studio):
    """The address at which the page of a studio is served; the server ends with the block."""
    started = Queue()

    async def run(listener):  # Gradio leaves event loops open that it makes where none is running
        with server.prepared(studio, page.Choice(["endless"]), ServeOptions(), "toy") as running:
            started.put(running)
            await running.serve(sockets=[listener])

    with server.listening("127.0.0.1", 0) as listener:
        thread = Thread(target=lambda: asyncio.run(run(listener)))
        thread.start()
        running = started.get(timeout=SECONDS)
        try:
            yield server.address_of(listener)
        finally:
            running.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


class Client:
    """A visitor without a browser.

    Args:
        address: of the page.
        name: of the session.
    """

    def __init__(self, address, name):
        self.address, self.name = address, name
        config = json.loads(self.ask("config"))
        self.parts = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        self.events = {tuple(target): one["id"] for one in config["dependencies"] for target in one["targets"]}

    def ask(self, path, body=None, kind="application/json"):
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.read()

    def start(self, part, event, *values):
        """Let something happen in the page; what comes of it is among the `messages` of the event that is returned."""
        said = {"data": values, "fn_index": self.events[self.parts[part], event], "session_hash": self.name}
        return json.loads(self.ask("gradio_api/queue/join", json.dumps(said).encode()))["event_id"]

    def messages(self, event):
        """What the server says of an event, as text, when all that was started is done."""
        stream = self.ask(f"gradio_api/queue/data?session_hash={self.name}").decode().splitlines()
        return "".join(line for line in stream if event in line)

    def drop(self, file):
        """Upload an image and open it."""
        frame = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
        body = frame + file.read_bytes() + b"\r\n--b--\r\n"
        (place,) = json.loads(self.ask("gradio_api/upload", body, "multipart/form-data; boundary=b"))
        event = self.start("image", "upload", {"path": place, "meta": {"_type": "gradio.FileData"}})
        assert "x.png, 90" in self.messages(event)

    def explain(self, *methods):
        return self.start("methods", "input", None, [0], methods)

    @contextmanager
    def present(self):
        """The connection that a page holds while it is open."""
        connection = HTTPConnection(self.address.removeprefix("http://").strip("/"), timeout=SECONDS)
        connection.request("GET", f"/gradio_api/heartbeat/{self.name}")
        with closing(connection.getresponse()) as alive:
            assert alive.readline() == b"data: ALIVE\n"
            yield
        connection.close()


@pytest.fixture
def address(studio):
    pytest.importorskip("gradio", reason="gradio is in the extra `serve`")
    with serving(studio) as found:
        yield found


def test_a_click_on_stop_ends_the_visitors_explanation_and_shows_what_is_finished(studio, address, file):
    visitor = Client(address, "avisitor")
    visitor.drop(file)
    running = visitor.explain("center", "endless")
    assert studio.methods["endless"].asking.wait(SECONDS)
    visitor.start("stop", "click")
    said = visitor.messages(running)
    assert said.count(f"No map: {STOPPED}") == 1 and said.count("<canvas") == 1 and "Error" not in said
    again = visitor.explain("center", "gradient")  # the queue is free
    assert visitor.messages(again).count("<canvas") == 2


def test_a_click_on_stop_when_nothing_is_explained_says_so_and_stops_nothing_later(address, file):
    visitor = Client(address, "avisitor")
    visitor.drop(file)
    assert page.IDLE in visitor.messages(visitor.start("stop", "click"))
    assert visitor.messages(visitor.explain("gradient")).count("<canvas") == 1


def test_who_leaves_keeps_nobody_waiting(studio, address, file):
    leaving, waiting, third = (Client(address, name) for name in ("leaving", "waiting", "third"))
    waiting.drop(file)
    with leaving.present():
        leaving.drop(file)
        leaving.explain("endless")
        assert studio.methods["endless"].asking.wait(SECONDS)
        event = waiting.explain("gradient")
        assert page.IDLE in third.messages(third.start("stop", "click"))  # it is not theirs
        studio.methods["endless"].asking.clear()
        assert studio.methods["endless"].asking.wait(SECONDS)
    assert waiting.messages(event).count("<canvas") == 1


def test_the_end_of_the_server_ends_what_is_being_explained(studio, file):
    pytest.importorskip("gradio", reason="gradio is in the extra `serve`")
    before = set(enumerate_threads())
    with serving(studio) as address:
        visitor = Client(address, "avisitor")
        visitor.drop(file)
        visitor.explain("endless")
        assert studio.methods["endless"].asking.wait(SECONDS)
    start = time.monotonic()
    for thread in set(enumerate_threads()) - before:
        thread.join(SECONDS)
    assert time.monotonic() - start < SECONDS / 2
