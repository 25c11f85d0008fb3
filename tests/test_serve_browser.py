"""The page as people have it: served by the program, opened in a real headless Chromium, without a network."""

import base64
import json
import re
import socket
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from http.client import HTTPConnection
from io import BytesIO
from threading import Event, Thread

import numpy as np
import pytest
from PIL import Image
from skimage import data
from watched import SECONDS, Watch, require_browser

import explain
from benchmarks.browser import launched
from datamodules.shapes import CLASSES

pytest.importorskip("playwright", reason="playwright is in the extra `test`")
pytest.importorskip("gradio", reason="gradio is in the extra `serve`")

from explainer.attribution import METHODS
from explainer.passes import Stopped
from explainer.report.sheet import overlay_picture, shrunk
from explainer.serve import server
from explainer.serve.studio import SHOWN

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
GRADIOS_OWN = ("Method not implemented.", "AbortError: signal is aborted without reason")
"""What its frontend (before version 6.20 the second, too) says to the console when it ends a stream."""


@pytest.fixture(scope="module")
def program():
    return require_browser()


@pytest.fixture(scope="module")
def calls():
    """Addresses elsewhere that this process connects to or asks for."""
    found = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def near(host):
        return host in (None, "", "localhost", "::1") or str(host).startswith("127.")

    def connecting(self, address):
        if self.family != socket.AF_UNIX and not near(address[0]):
            found.append(address)
        return connect(self, address)

    def looking_up(host, *arguments, **named):
        if not near(host):
            found.append(host)
        return look_up(host, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connecting)
        patch.setattr(socket, "getaddrinfo", looking_up)
        yield found


@pytest.fixture(scope="module")
def served(small_run, calls, program):
    """The address of the page that `explain.py --serve` serves, and the studio behind it."""
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "serve", lambda *arguments: given.extend(arguments))
        limits = ("--max_upload_mb", "1", "--max_megapixels", "1")
        explain.main(
            ["--serve", "--run", str(small_run), "--accelerator", "cpu", "--methods", "explainer", "grad_cam", *limits]
        )
    studio, choice, options, title = given
    with server.listening(options.host, 0) as listener, server.prepared(studio, choice, options, title) as running:
        thread = Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield server.address_of(listener), studio
        running.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(served):
    return served[0]


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A real photograph, wider than high."""
    file = tmp_path_factory.mktemp("photographs") / "astronaut & co.png"
    Image.fromarray(data.astronaut()[:300, :400]).save(file)
    return file


class PageWatch(Watch):
    """Waits until the page can take an image."""

    def open(self, address):
        tab = super().open(address)
        tab.wait_for_selector("#image input[type=file]", state="attached")
        return tab


@pytest.fixture(scope="module")
def watch(program):
    with launched(program) as browser:
        yield PageWatch(browser.new_context(viewport=WIDE, accept_downloads=True))


@pytest.fixture(autouse=True)
def nothing_to_complain_about(watch, address, calls):
    """Nothing is complained about in the console, and nobody else is asked for anything by the page or the server."""
    yield
    assert [text for text in watch.complaints if not text.startswith(GRADIOS_OWN)] == []
    assert [url for url in watch.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert calls == []


@pytest.fixture(scope="module")
def tab(watch, address, photograph):
    """The page with the photograph in it; the tests ask for other classes and settings, and rely on none."""
    tab = watch.open(address)
    drop(tab, photograph)
    tab.wait_for_selector("canvas[data-drawn]")
    return tab


def drop(tab, file):
    """As a hand does: the file falls onto the page."""
    content = base64.b64encode(file.read_bytes()).decode()
    tab.evaluate(
        """([content, name]) => {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type: "image/png" }));
            const target = document.querySelector("#image button");
            for (const kind of ["dragenter", "dragover", "drop"]) {
                target.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
            }
        }""",
        [content, file.name],
    )


def slide(tab, name, value):
    tab.fill(f"#{name} input[type=number]", str(value))
    tab.keyboard.press("Tab")


def settled(tab, opacity, threshold):
    """Wait until all pictures are drawn that way."""
    drawn = f"{opacity} {threshold}"
    tab.wait_for_function(
        "drawn => [...document.querySelectorAll('canvas[data-mask]')].every(one => one.dataset.drawn === drawn)",
        arg=drawn,
    )


def pixels(tab, selector="canvas[data-mask]"):
    """Of the first picture, [h,w,3]."""
    address = tab.eval_on_selector(selector, "canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")).astype(int)


def captions(tab):
    return tab.locator("#pictures section:first-of-type figcaption b").all_inner_texts()


def test_the_predicted_classes_of_a_dropped_photograph_are_explained_by_all_methods(tab):
    assert tab.locator("#pictures h3").all_inner_texts() == ["explainer", "grad_cam"]
    assert len(captions(tab)) >= 3
    assert {name.rstrip("*") for name in captions(tab)} <= set(CLASSES)
    assert "astronaut" in tab.inner_text(".photograph") and "400 × 300" in tab.inner_text(".photograph")
    chosen = tab.locator("#classes .token").all_inner_texts()
    assert [re.sub(r"\*? [\d.]+\s*$", "", text.strip()) for text in chosen] == [
        one.rstrip("*") for one in captions(tab)
    ]


def test_another_class_is_chosen_and_its_picture_comes(tab):
    missing = next(name for name in CLASSES if name not in {one.rstrip("*") for one in captions(tab)})
    tab.click("#classes input")
    tab.locator("#classes [role=option]", has_text=missing).first.click()
    tab.wait_for_selector(f"canvas[aria-label^='{missing},'][data-drawn] >> nth=1")
    assert missing in {one.rstrip("*") for one in captions(tab)}
    tab.keyboard.press("Escape")


def test_the_sliders_change_the_picture_at_once_without_asking_the_server(tab, watch):
    slide(tab, "opacity", 65)
    slide(tab, "threshold", 0)
    settled(tab, 0.65, 0)
    before, asked = pixels(tab), len(watch.requests)
    slide(tab, "opacity", 0)
    settled(tab, 0, 0)
    grey = pixels(tab)
    assert (np.ptp(grey, axis=2) == 0).all() and np.abs(before - grey).max() > 30
    slide(tab, "opacity", 100)
    slide(tab, "threshold", 50)
    settled(tab, 1, 0.5)
    hidden = (np.ptp(pixels(tab), axis=2) == 0).mean()
    assert 0 < hidden < 1
    share = int(re.search(r"(\d+) % of the image", tab.inner_text("#pictures figcaption"))[1])
    assert share == pytest.approx(100 * (1 - hidden), abs=2)
    assert watch.requests[asked:] == []


def test_the_picture_is_the_overlay_that_explain_py_writes_and_the_download_holds_the_masks(
    tab, photograph, small_run, tmp_path
):
    slide(tab, "opacity", 65)
    slide(tab, "threshold", 0)
    settled(tab, 0.65, 0)
    shown = captions(tab)
    with tab.expect_download() as download:
        tab.click("#pack")
    assert download.value.suggested_filename == "astronaut & co_explained.zip"
    with zipfile.ZipFile(download.value.path()) as packed:
        packed.extractall(tmp_path / "page")
    names = [name.rstrip("*") for name in shown]
    explain.main(
        [str(photograph), "--run", str(small_run), "--methods", "explainer", "grad_cam", "--classes", *names]
        + ["--output", str(tmp_path / "files"), "--workers", "0", "--accelerator", "cpu"]
    )
    written = {folder: sorted((tmp_path / folder).rglob("*.*")) for folder in ("page", "files")}
    relative = {folder: [file.relative_to(tmp_path / folder) for file in files] for folder, files in written.items()}
    assert relative["page"] == relative["files"]
    for one, other in zip(written["page"], written["files"], strict=True):
        if one.suffix == ".png" and one.is_file():
            np.testing.assert_array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
    summary = json.loads((tmp_path / "page" / "explanations.json").read_text())
    first = summary["images"][0]["methods"]["explainer"]["classes"][0]
    assert first["class"] == names[0]
    size = (SHOWN, round(SHOWN * 300 / 400))
    grey = Image.open(tmp_path / "page" / first["mask"]).resize(size, Image.Resampling.BILINEAR)
    expected = np.asarray(overlay_picture(shrunk(Image.open(photograph).convert("RGB"), SHOWN), grey)).astype(int)
    assert np.abs(pixels(tab) - expected).mean() < 3


@pytest.mark.parametrize("window", [NARROW, {"width": 768, "height": 900}])
def test_a_narrow_window_needs_no_scrolling_to_the_side(tab, window):
    tab.set_viewport_size(window)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for place in ("#image", "#opacity", "#pictures", "#pack"):
        box = tab.locator(place).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= window["width"]
    tab.set_viewport_size(WIDE)


class Lengthy:
    """RISE with so many masks that nobody waits for it; says when it has begun, and when it was broken off."""

    unit_range = False

    def __init__(self, explanandum):
        self.explanandum, self.rise = explanandum, METHODS["rise"](explanandum, masks=200_000)
        self.asked, self.stopped = Event(), Event()

    def present_class_maps(self, image, labels):
        self.asked.set()
        try:
            return self.rise.present_class_maps(image, labels)
        except Stopped:
            self.stopped.set()
            raise


@pytest.fixture
def lengthy(served, monkeypatch):
    """In the place of Grad-CAM."""
    _, studio = served
    monkeypatch.setitem(studio.methods, "grad_cam", Lengthy(studio.explanandum))
    return studio.methods["grad_cam"]


def untick(tab, method):
    tab.locator("#methods label", has_text=method).locator("input").uncheck()


def test_a_method_that_takes_long_is_stopped_and_the_others_pictures_are_there(watch, address, photograph, lengthy):
    tab = watch.open(address)
    drop(tab, photograph)
    assert lengthy.asked.wait(SECONDS)
    tab.click("#stop")
    assert lengthy.stopped.wait(SECONDS)
    tab.wait_for_selector("#pictures .failed >> text=No map: stopped")
    tab.wait_for_selector("canvas[data-drawn]")
    assert tab.locator("#pictures canvas").count() == tab.locator("#pictures .failed").count() > 0
    untick(tab, "grad_cam")
    tab.wait_for_selector("#pictures .failed", state="detached")
    tab.click("#stop")  # of nothing
    tab.wait_for_selector("text=Nothing of yours is being explained")
    assert tab.locator("#pictures canvas").count() > 0
    tab.close()


@pytest.mark.parametrize("leave", [lambda tab: tab.close(), lambda tab: tab.reload()], ids=["closed", "reloaded"])
def test_a_page_that_is_closed_or_reloaded_keeps_nobody_waiting(watch, address, photograph, lengthy, leave):
    tab = watch.open(address)
    drop(tab, photograph)
    assert lengthy.asked.wait(SECONDS)
    noted = len(watch.complaints)
    leave(tab)
    assert lengthy.stopped.wait(SECONDS)
    del watch.complaints[noted:]  # some versions of Gradio complain that their streams are cut off as the page is left
    other = watch.open(address)
    untick(other, "grad_cam")
    drop(other, photograph)
    other.wait_for_selector("canvas[data-drawn]")
    other.close()
    tab.close()


def noisy(side, file):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(file)
    return file


def test_what_cannot_be_used_is_told_in_words_and_the_next_image_works(watch, address, photograph, tmp_path):
    tab = watch.open(address)
    (tmp_path / "notes.png").write_bytes(b"no image at all")
    Image.new("L", (1500, 1000)).save(tmp_path / "wide.png")
    for name, words in (("notes.png", "not an image of a known format"), ("wide.png", "1500x1000 pixels, more than")):
        tab.set_input_files("#image input[type=file]", tmp_path / name)
        tab.wait_for_selector(f"[role=alert] >> text={words}")
        tab.click("#image [aria-label='Clear'], #image [title='Clear'], #image button[aria-label*='lear']")
        tab.wait_for_selector("#image input[type=file]", state="attached")
    large = noisy(640, tmp_path / "large.png")
    assert large.stat().st_size > 1_000_000
    tab.set_input_files("#image input[type=file]", large)
    tab.wait_for_selector("text=/maximum|too large|exceeds/i")
    tab.set_input_files("#image input[type=file]", photograph)
    tab.wait_for_selector("canvas[data-drawn]")
    tab.close()


@pytest.mark.parametrize("evil", ["<img src=x onerror=alert(1)>", "${alert(1)}", "{{value}}", "</script>", "'\" & `"])
def test_the_name_of_a_class_is_text_whatever_it_looks_like(watch, served, photograph, monkeypatch, evil):
    address, studio = served
    card = studio.explanandum.card
    names = tuple(f"{evil}{place}" for place in range(len(card.classes)))
    monkeypatch.setattr(studio.explanandum, "card", replace(card, classes=names))
    tab = watch.open(address)
    tab.set_input_files("#image input[type=file]", photograph)
    tab.wait_for_selector("canvas[data-drawn]")
    assert {name.rstrip("*") for name in captions(tab)} <= set(names)
    tab.close()


# What a client can send that is no page.


def send(address, path, body, **headers):
    """The status and the text of the answer."""
    request = urllib.request.Request(address + path.lstrip("/"), body, headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def upload(address, content, name="x.png"):
    frame = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = frame + content + b"\r\n--b--\r\n"
    return send(address, "gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=b"})


def opening(address):
    """The number of the event that a dropped image starts."""
    config = json.loads(send(address, "config", None)[1])
    file = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "image")
    return next(one["id"] for one in config["dependencies"] if [file, "upload"] in one["targets"])


def say(address, event, value):
    message = {"data": [value], "fn_index": event, "session_hash": "aclient"}
    return send(address, "gradio_api/queue/join", json.dumps(message).encode(), **{"Content-Type": "application/json"})


def file_data(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def test_a_path_or_an_address_sent_in_the_place_of_a_file_is_refused(address, photograph):
    event = opening(address)
    code, answer = upload(address, photograph.read_bytes())
    (own,) = json.loads(answer)
    assert code == 200 and say(address, event, file_data(own))[0] == 200  # the door is there
    for place in (photograph, "/etc/passwd", f"{own}/../../../secret", "http://example.org/x.png", f"{address}x.png"):
        assert say(address, event, file_data(place))[0] == 403
        assert say(address, event, file_data(place, url=f"{address}gradio_api/file={own}"))[0] == 403


def test_no_file_but_those_that_were_uploaded_is_served(address, photograph):
    code, answer = upload(address, photograph.read_bytes())
    assert code == 200
    (own,) = json.loads(answer)
    assert send(address, f"gradio_api/file={own}", None)[0] == 200
    for place in (photograph, "/etc/passwd", f"{own}/../../../../etc/passwd", "http://example.org/x.png"):
        assert send(address, f"gradio_api/file={urllib.request.quote(str(place))}", None)[0] in (403, 404)
    for path in ("assets/..%2f..%2f..%2fetc/passwd", "static/../../../etc/passwd", "gradio_api/info/../../config.py"):
        assert send(address, path, None)[0] == 404


def test_a_file_that_is_too_large_is_refused_before_any_of_it_has_come(address):
    asked = HTTPConnection(address.removeprefix("http://").strip("/"), timeout=SECONDS)
    asked.putrequest("POST", "/gradio_api/upload")
    asked.putheader("Content-Length", "1050000")
    asked.endheaders()
    answer = asked.getresponse()
    assert (answer.status, answer.read()) == (413, b"1,050,000 bytes are too many; 1,010,000 are taken at most.")
    asked.close()


def test_nothing_of_gradio_is_open_that_the_page_does_not_need(address):
    for path in ("gradio_api/runs", "monitoring", "gradio_api/openapi.json", "docs", "gradio_api/deep_link"):
        assert send(address, path, None)[0] == 404
    for path in ("gradio_api/run/open", "gradio_api/call/open", "gradio_api/component_server", "gradio_api/vibe-edit"):
        assert send(address, path, b"{}", **{"Content-Type": "application/json"})[0] == 404
    config = json.loads(send(address, "config", None)[1])
    assert not config["analytics_enabled"]
    assert not config.get("is_space")
