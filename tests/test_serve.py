"""What the page does, what it shows and what it refuses, without a browser."""

import asyncio
import json
import re
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_models import CLASSES, SIZE, WindowNet, freeze

import explain
from explainer.attribution import AttributionMethod
from explainer.capture import CannotExplain
from explainer.explaining import explain_photograph
from explainer.serve import page
from explainer.serve.guard import KEPT_FILES, MOST_JSON, Guard, Rules
from explainer.serve.options import ServeOptions, require_gradio
from explainer.serve.overlays import message_html, overlays_html, photograph_html
from explainer.serve.server import is_loopback, listening
from explainer.serve.studio import MOST_CLASSES, Studio
from programs.explain_options import parse_explain

EVIL = "<img src=x onerror=alert(1)>"


class Brightness(AttributionMethod):
    """The brightness of each pixel, whatever the class; fails on the class `fails`, and counts what it is asked."""

    unit_range = True

    def __init__(self, explanandum, fails=None):
        super().__init__(explanandum)
        self.fails, self.asked = fails, []

    def __call__(self, image, target):
        self.asked.append(target.tolist())
        if self.fails in target.tolist():
            raise CannotExplain(f"not this class {EVIL}")
        return image.mean(dim=1)


@pytest.fixture
def studio():
    explanandum = freeze(WindowNet())
    methods = {"brightness": Brightness(explanandum), "failing:a=1,b=2": Brightness(explanandum, fails=1)}
    return Studio(explanandum, methods, {"explanandum": "toy"}, most_pixels=10_000)


@pytest.fixture
def file(tmp_path):
    """Black, with a white box, twice as wide as high."""
    image = Image.new("RGB", (90, 45))
    image.paste("white", (60, 10, 90, 20))
    image.save(tmp_path / "photo one.png")
    return tmp_path / "photo one.png"


@pytest.fixture
def opened(studio, file):
    return studio.open(file)


# Opening.


def test_an_opened_photograph_is_scored_as_anywhere_else(studio, opened, file):
    expected = explain_photograph(Image.open(file), studio.methods["brightness"])
    assert opened.size == (90, 45)
    assert studio.usual_classes(opened, 3) == [one.index for one in expected.classes]
    for one in expected.classes:
        assert float(opened.probabilities[one.index]) == pytest.approx(one.probability)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.png", b"no image", "not an image of a known format"),
        ("empty.png", b"", "not an image of a known format"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    ],
)
def test_what_is_no_image_is_refused_without_telling_where_it_lies(studio, tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        studio.open(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(studio, tmp_path, monkeypatch):
    Image.new("RGB", (101, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was unpacked"))
    with pytest.raises(ValueError, match="101x100 pixels, more than the 10,000"):
        studio.open(tmp_path / "large.png")


def test_an_image_that_does_not_fit_into_the_memory_is_told(studio, file, monkeypatch):
    monkeypatch.setattr("explainer.serve.studio.prepare", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ValueError, match="does not fit into the memory"):
        studio.open(file)
    monkeypatch.undo()
    assert studio.open(file).size == (90, 45)  # the next one is not kept out


# Explaining.


def test_what_a_method_said_it_is_not_asked_again(studio, opened):
    method = studio.methods["brightness"]
    first = studio.explain(opened, [2, 0], ["brightness"])
    second = studio.explain(first, [0, 1], ["brightness"])
    assert sorted(sum(method.asked, [])) == [0, 1, 2]
    assert sorted(second.explanations["brightness"].maps) == [0, 1]  # what is not shown is not kept
    assert second.explanations["brightness"].maps[0] is first.explanations["brightness"].maps[0]
    assert [one.name for one in second.explanations["brightness"].classes] == [
        one.name for one in explain_photograph(opened.shown, method, [CLASSES[0], CLASSES[1]]).classes
    ]


def test_a_method_that_fails_on_a_class_leaves_the_others_alone(studio, opened):
    told = []
    said = studio.explain(opened, [0, 1], list(studio.methods), lambda *facts: told.append(facts)).explanations
    assert told == [(0, 2, "brightness"), (1, 2, "failing:a=1,b=2")]
    assert set(said["brightness"].maps) == {0, 1}
    assert set(said["failing:a=1,b=2"].maps) == {0}
    assert "not this class" in said["failing:a=1,b=2"].failures[1]


@pytest.mark.parametrize(
    ("classes", "methods", "message"),
    [
        ([3], ["brightness"], "no class or method '3'"),
        ([-1], ["brightness"], "no class or method '-1'"),
        ([0], ["rise:masks=1000000"], "no class or method 'rise"),
        ([0] * (MOST_CLASSES + 1), ["brightness"], f"choose {MOST_CLASSES} at most"),
    ],
)
def test_only_what_is_offered_can_be_asked_for(studio, opened, classes, methods, message):
    with pytest.raises(ValueError, match=message):
        studio.explain(opened, classes, methods)


# Downloads.


def test_a_download_holds_what_explain_py_writes(studio, opened, file, tmp_path):
    explained = studio.explain(opened, [0, 1], list(studio.methods))
    packed = studio.pack(explained, ["masks", "arrays", "overlays", "sheets"], tmp_path)
    assert packed.name == "photo one_explained.zip"
    with zipfile.ZipFile(packed) as held:
        held.extractall(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "explanations.json").read_text())
    (image,) = summary["images"]
    assert (image["file"], image["width"], image["height"]) == (file.name, 90, 45)
    assert summary["explanandum"] == "toy"
    assert summary["failed"][0]["class"] == CLASSES[1]
    said = image["methods"]["brightness"]
    arrays = np.load(tmp_path / "out" / said["arrays"], allow_pickle=False)
    expected = explain_photograph(Image.open(file), studio.methods["brightness"], CLASSES[:2])
    for mask, one, facts in zip(arrays["masks"], expected.classes, said["classes"], strict=True):
        np.testing.assert_allclose(mask, expected.mask(one.index).numpy(), atol=1e-6)
        with Image.open(tmp_path / "out" / facts["mask"]) as grey:
            assert grey.mode == "L" and grey.size == (90, 45)
    assert str(tmp_path) not in (tmp_path / "out" / "explanations.json").read_text()
    assert [one for one in tmp_path.iterdir() if one.is_dir()] == [tmp_path / "out"]  # nothing is left beside the zip


def test_a_download_that_cannot_be_made_says_why(studio, opened, tmp_path, monkeypatch):
    explained = studio.explain(opened, [0, 1], ["brightness"])
    with pytest.raises(ValueError, match="no mask to download"):
        studio.pack(opened, ["masks"], tmp_path)
    with pytest.raises(ValueError, match="Tick what"):
        studio.pack(explained, [], tmp_path)
    monkeypatch.setattr("explainer.serve.studio.MOST_VALUES", 2 * 90 * 45 - 1)
    with pytest.raises(ValueError, match="8,100 values, more than 8,099; untick `arrays`"):
        studio.pack(explained, ["arrays"], tmp_path)
    assert studio.pack(explained, ["masks"], tmp_path).is_file()
    with pytest.raises(FileNotFoundError, match="drop it once more"):
        studio.pack(replace(explained, file=tmp_path / "gone.png"), ["masks"], tmp_path)


# What is shown.


class Tags(HTMLParser):
    """Every tag, with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_each_mask_travels_once_as_a_grey_picture_with_a_name(studio, opened):
    tags = Tags(overlays_html(studio.explain(opened, [0, 2], ["brightness"])))
    canvases = tags.named("canvas")
    assert len(canvases) == 2
    assert all(one["data-mask"].startswith("data:image/png;base64,") for one in canvases)
    assert all("as brightness sees it" in one["aria-label"] for one in canvases)
    (root,) = [one for one in tags.named("div") if one.get("class") == "overlays"]
    assert root["data-photograph"].startswith("data:image/jpeg;base64,")
    colours = root["data-colours"].split(" ")
    assert len(colours) == 256 and all(re.fullmatch("#[0-9a-f]{6}", one) for one in colours)


def test_a_failure_is_shown_in_the_place_of_its_picture(studio, opened):
    shown = overlays_html(studio.explain(opened, [0, 1], ["failing:a=1,b=2"]))
    assert "No map: CannotExplain: not this class" in shown
    assert len(Tags(shown).named("canvas")) == 1


def test_no_name_of_anything_becomes_a_tag(studio, file, tmp_path):
    studio.methods[EVIL] = studio.methods["failing:a=1,b=2"]
    studio.explanandum.card = replace(studio.explanandum.card, classes=(EVIL, f"{EVIL}2", f'"{EVIL}'))
    evil = tmp_path / 'x" onload="alert(1).png'
    file.rename(evil)
    opened = studio.open(evil)
    shown = overlays_html(studio.explain(opened, [0, 1, 2], [EVIL])) + photograph_html(opened) + message_html(EVIL)
    assert "<img src=x" not in shown
    assert [one for one in Tags(shown).named("img") if set(one) != {"alt", "src"}] == []


def test_nothing_chosen_is_a_sentence(studio, opened):
    assert "Choose at least one" in overlays_html(studio.explain(opened, [], ["brightness"]))
    assert "Choose at least one" in overlays_html(studio.explain(opened, [0], []))


def test_who_was_forgotten_is_asked_for_the_image_again(studio, tmp_path):
    desk = page.Desk(studio, page.Choice(["brightness"]), tmp_path)
    assert desk.explain(None, [0], ["brightness"]) == (None, message_html(page.WELCOME))


def test_what_cannot_be_asked_for_is_a_sentence_and_no_traceback(studio, opened, tmp_path):
    desk = page.Desk(studio, page.Choice(["brightness"]), tmp_path)
    kept, shown = desk.explain(opened, [0], ["unknown"])
    assert kept is opened and 'role="alert"' in shown and "no class or method" in shown


# Several visitors.


def test_visitors_are_served_one_after_the_other(studio, file):
    at_work, most = [], []

    class Slow(Brightness):
        def __call__(self, image, target):
            at_work.append(1)
            most.append(len(at_work))
            time.sleep(0.02)
            at_work.pop()
            return super().__call__(image, target)

    studio.methods["slow"] = Slow(studio.explanandum)
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: studio.explain(studio.open(file), [0, 1], ["slow"]), range(4)))
    assert max(most) == 1 and len(most) == 4
    first = said[0].explanations["slow"].maps
    assert all(one.explanations["slow"].maps[index].equal(first[index]) for one in said for index in first)


def test_each_download_has_a_place_of_its_own_and_the_oldest_make_room(studio, file, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is in the extra `serve`")
    desk = page.Desk(studio, page.Choice(["brightness"]), tmp_path)
    explained = studio.explain(studio.open(file), [0], ["brightness"])
    first, second = (Path(desk.pack(explained, ["masks"])) for _ in range(2))
    assert first.name == second.name and first != second and first.read_bytes() == second.read_bytes()
    monkeypatch.setattr(page, "MOST_DOWNLOADS", first.stat().st_size)
    third = Path(desk.pack(explained, ["masks"]))
    assert [one.exists() for one in (first, second, third)] == [False, True, True]
    with pytest.raises(Exception, match="Tick what the download shall hold"):
        desk.pack(explained, [])
    with pytest.raises(Exception, match="drop one first"):
        desk.pack(None, ["masks"])


def test_a_file_elsewhere_is_not_opened_even_if_everybody_lets_its_path_through(studio, file, tmp_path):
    pytest.importorskip("gradio", reason="gradio is in the extra `serve`")
    (tmp_path / "kept").mkdir()
    desk = page.Desk(studio, page.Choice(["brightness"]), tmp_path / "kept")
    opened, *_, message = desk.open(str(file))
    assert opened is None and "no file that was uploaded here" in message and 'role="alert"' in message


# The guard.

HOST = "127.0.0.1:7860"


@pytest.fixture
def rules(tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "own.png").write_bytes(b"own")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    return Rules(folder, 1000, frozenset({"localhost", "127.0.0.1"}))


def ask(rules, method, path, body=b"", **headers):
    """The status, and the body that the application behind the guard got; None if it was not asked."""
    got, sent = [], []

    async def application(scope, receive, send):
        got.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    pieces = [body[:10], body[10:]]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    headers = {"host": HOST, "content-length": str(len(body)), **headers}
    scope = {"type": "http", "method": method, "path": path, "query_string": b"deep_link=x"}
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(application, rules)(scope, receive, send))
    return sent[0]["status"], (got[0] if got else None), sent[0]["headers"]


def status(*arguments, **headers):
    return ask(*arguments, **headers)[0]


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index-A_1.js", "/gradio_api/queue/data"])
def test_what_the_page_asks_for_comes_through_and_the_browser_is_told_to_ask_nobody_else(rules, path):
    answer, _, headers = ask(rules, "GET", path)
    assert answer == 200
    assert b"default-src 'self'" in dict(headers)[b"content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/assets/../../etc/passwd"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("PUT", "/"),
    ],
)
def test_the_rest_of_gradios_interface_is_closed(rules, method, path):
    assert ask(rules, method, path, b"{}")[:2] == (404, None)


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "../secret.txt",
        "http://example.org/x.png",
        "https://127.0.0.1/x",
        "file:///etc/passwd",
        "link.png",
    ]
    + ["own.png/../../secret.txt", "", "\0", None, 7, ["own.png"], {"path": "/etc/passwd"}],
)
def test_no_path_or_address_of_a_clients_choice_comes_through(rules, place):
    named = (
        str(rules.folder / place) if isinstance(place, str) and place.endswith(("secret.txt", "link.png")) else place
    )
    for message in ({"data": [{"path": named}]}, {"data": [[{"a": {"path": named, "url": "x"}}]]}):
        body = json.dumps(message).encode()
        assert ask(rules, "POST", "/gradio_api/queue/join", body)[:2] == (403, None)
    if isinstance(named, str):
        assert status(rules, "GET", f"/gradio_api/file={named}") in (403, 404)


def test_an_uploaded_file_comes_through_untouched(rules):
    body = json.dumps({"data": [{"path": str(rules.folder / "own.png"), "url": "http://x/"}]}).encode()
    assert ask(rules, "POST", "/gradio_api/queue/join", body)[:2] == (200, body)
    assert status(rules, "GET", f"/gradio_api/file={rules.folder}/own.png") == 200


def test_what_is_too_large_is_refused_by_what_it_says_before_it_is_read(rules):
    assert status(rules, "POST", "/gradio_api/upload", b"", content_length="1000000") == 413
    assert status(rules, "POST", "/gradio_api/upload", b"x" * 1000) == 200
    assert status(rules, "POST", "/gradio_api/queue/join", b"", content_length=str(MOST_JSON + 1)) == 413
    assert status(rules, "POST", "/gradio_api/upload", b"", content_length="") == 411
    assert status(rules, "POST", "/gradio_api/queue/join", b"no json") == 400


def test_a_full_folder_takes_no_more(rules):
    (rules.folder / "full").write_bytes(b"x" * (KEPT_FILES * rules.most_bytes))
    assert status(rules, "POST", "/gradio_api/upload", b"x") == 507


def test_another_sites_scripts_cannot_use_the_page(rules):
    assert status(rules, "GET", "/", host="evil.example") == 421
    assert status(rules, "GET", "/", host="[") == 421  # can't be an address at all
    assert status(rules, "POST", "/gradio_api/upload", b"x", origin="http://[") == 403
    assert status(rules, "POST", "/gradio_api/upload", b"x", origin="http://evil.example") == 403
    assert status(rules, "POST", "/gradio_api/upload", b"x", origin="null") == 403
    assert status(rules, "POST", "/gradio_api/upload", b"x", origin=f"http://{HOST}") == 200
    assert status(replace(rules, hosts=None), "GET", "/", host="box.example") == 200


# The command line.


def test_the_page_takes_no_images_and_the_files_need_some(capsys):
    for arguments, message in (
        (["--serve", "x.png", "--run", "RUN"], "takes its images from the browser; leave x.png out"),
        (["--run", "RUN"], "Name images, or folders of them; or open a page for the browser with --serve"),
        (["--serve", "--run", "RUN", "--port", "70000"], "--port must be from 0 to 65535"),
        (["--serve", "--run", "RUN", "--max_upload_mb", "0"], "--max_upload_mb must be at least 1"),
        (["--serve"], "Say what explains"),
    ):
        with pytest.raises(SystemExit) as stop:
            parse_explain(arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_by_default_the_page_is_for_this_machine_alone():
    page = parse_explain(["--serve", "--run", "RUN"]).page
    assert is_loopback(page.host)
    assert (page.most_bytes, page.most_pixels) == (20_000_000, 25_000_000)
    assert is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.0.2.1")


def test_without_gradio_the_remedy_is_named_before_anything_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r'pip install "explainer\[serve\]"'):
        explain.main(["--serve", "--run", "nowhere"])
    monkeypatch.setattr("explainer.serve.options.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs Gradio"):
        require_gradio()


def test_a_port_that_is_taken_is_told():
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Cannot serve at 127.0.0.1, port {port} .*name another --port"):
            listening("127.0.0.1", port)


def test_the_methods_offered_are_those_named_or_else_cheap_ones(small_run, monkeypatch):
    served = []
    monkeypatch.setattr("explain.require_gradio", lambda: None)
    monkeypatch.setattr("explainer.serve.server.serve", lambda *arguments: served.append(arguments))
    given = ["--serve", "--run", str(small_run), "--accelerator", "cpu"]
    assert explain.main(given) is None
    assert explain.main([*given, "--methods", "rise:masks=8", "gradient", "--classes", "star"]) is None
    (studio, choice, _, _), (named, chosen, _, title) = served
    assert list(studio.methods)[:2] == ["explainer", "grad_cam"] and choice.methods == ["explainer"]
    assert list(named.methods) == ["rise:masks=8", "gradient"] == list(chosen.methods)
    assert [named.classes[index] for index in chosen.classes] == ["star"]
    assert small_run.name in title and named.most_pixels == ServeOptions().most_pixels


def test_the_classifier_is_left_as_it_was(studio, opened):
    before = {name: value.clone() for name, value in studio.explanandum.state_dict().items()}
    studio.explain(opened, [0, 1, 2], list(studio.methods))
    assert all(torch.equal(value, before[name]) for name, value in studio.explanandum.state_dict().items())
    assert opened.prepared.shape == (3, SIZE, SIZE)
