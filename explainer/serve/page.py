"""The page in Gradio: a place for an image, classes and methods to choose, pictures, sliders, a download."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from explainer.explaining import TOP
from explainer.explanation_files import KINDS, Kind
from explainer.serve.guard import DOWNLOADS, size_of
from explainer.serve.overlays import OPACITY, THRESHOLD, message_html, overlays_html, photograph_html
from explainer.serve.runs import Runs
from explainer.serve.studio import MOST_CLASSES, Opened, Studio

if TYPE_CHECKING:
    import gradio as gr

SESSIONS = 16
"""Visitors whose photograph and maps are kept; then the one is forgotten who came first."""
KEPT = 3600
"""Seconds that files, and what belongs to a visitor who left, are kept."""
LOOK_FOR_OLD = 600
MOST_DOWNLOADS = 1_000_000_000
"""Bytes of downloads that are kept when another one is made."""
WAITING = 20
"""Requests that wait; further ones are sent away."""
WELCOME = "Drop an image, or click to choose one."
IDLE = "Nothing of yours is being explained. What still waits for others can be stopped when its turn has come."
SLIDERS = "(opacity, threshold) => { window.overlays.set(opacity, threshold); return []; }"
SAVE = "() => document.querySelector('#download a, a#download, button#download')?.click()"


@dataclass(frozen=True)
class Choice:
    """What is chosen when the page opens.

    Args:
        methods: of those that the studio has.
        classes: indices; empty for the most probable.
        top: so many of the most probable.
        kinds: of files in a download.
    """

    methods: Sequence[str]
    classes: Sequence[int] = ()
    top: int = TOP
    kinds: Sequence[Kind] = field(default_factory=lambda: list(KINDS))


class Desk:
    """What happens on a click: values of the page in, values of the page out.

    Args:
        studio: that does the work.
        choice: when an image is dropped.
        folder: of uploads and downloads.

    Attributes:
        runs: what is being explained now, by the visitor's session.
    """

    def __init__(self, studio: Studio, choice: Choice, folder: Path) -> None:
        self.studio = studio
        self.choice = choice
        self.folder = folder.resolve()
        self.runs = Runs()

    def open(self, file: str | None) -> tuple[Opened | None, Any, Any, str]:
        """An uploaded file -> what is kept of it, its picture, the classes to choose from, and a message."""
        import gradio as gr

        nothing = None, gr.update(value="", visible=False), gr.update(choices=[], value=[])
        try:
            if file is None:
                return *nothing, message_html(WELCOME)
            opened = self.studio.open(self._uploaded(file))
        except ValueError as error:
            return *nothing, message_html(str(error), problem=True)
        names = self.studio.classes
        order = opened.probabilities.argsort(descending=True, stable=True).tolist()
        choices = [(f"{names[index]} {opened.probabilities[index]:.2f}", index) for index in order]
        chosen = list(self.choice.classes) or self.studio.usual_classes(opened, self.choice.top)
        picture = gr.update(value=photograph_html(opened), visible=True)
        return opened, picture, gr.update(choices=choices, value=chosen), message_html("…")

    def explain(
        self, opened: Opened | None, classes: list[int], methods: list[str], visitor: str = "", tell: Any = None
    ) -> tuple[Opened | None, Any]:
        """What is chosen -> what is kept of it, and its pictures; stopped, those that are finished."""
        if opened is None:  # or the visitor is one of those who were forgotten
            return None, message_html(WELCOME)

        def progress(done: int, of: int, name: str) -> None:
            if tell is not None:
                tell((done, of), desc=name)

        try:
            with self.runs.of(visitor) as stop:
                explained = self.studio.explain(opened, classes or [], methods or [], progress, stop)
        except ValueError as error:
            return opened, message_html(str(error), problem=True)
        return explained, overlays_html(explained)

    def pack(self, opened: Opened | None, kinds: list[Kind]) -> str:
        """What the page shows, as a zip file."""
        import gradio as gr

        try:
            if opened is None:
                raise ValueError("There is no image yet; drop one first.")
            return str(self.studio.pack(opened, kinds, self._own_folder()))
        except (ValueError, FileNotFoundError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    def _own_folder(self) -> Path:
        """For one download, whose name another visitor's may have, too; the oldest ones make room."""
        downloads = self.folder / DOWNLOADS
        downloads.mkdir(exist_ok=True)
        kept = sorted(downloads.iterdir(), key=lambda one: one.stat().st_mtime)
        while kept and sum(map(size_of, kept)) > MOST_DOWNLOADS:
            rmtree(kept.pop(0), ignore_errors=True)
        return Path(mkdtemp(dir=downloads))

    def _uploaded(self, file: str) -> Path:
        """Gradio looks at this, and the guard; here the file is opened, so it is looked at here too."""
        place = Path(file).resolve()
        if not place.is_relative_to(self.folder):
            raise ValueError("This is no file that was uploaded here.")
        return place


def make_page(desk: Desk, title: str) -> "gr.Blocks":
    """The page; nothing of it is served yet.

    Args:
        desk: what happens on a click.
        title: a line about the classifier.
    """
    import gradio as gr

    with gr.Blocks(title="Explainer", analytics_enabled=False, delete_cache=(LOOK_FOR_OLD, KEPT)) as page:
        session = gr.State(None, time_to_live=KEPT)
        gr.Markdown(f"# Where does the classifier look?\n{title}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(label="Image", file_count="single", type="filepath", height=140, elem_id="image")
                photograph = gr.HTML(visible=False)
                classes = gr.Dropdown(
                    choices=[], value=[], multiselect=True, max_choices=MOST_CLASSES, elem_id="classes",
                    label="Classes", info="with the classifier's probabilities",
                )  # fmt: skip
                methods = gr.CheckboxGroup(
                    list(desk.studio.methods), value=list(desk.choice.methods), label="Methods", elem_id="methods"
                )
                _stop_button(desk, page)
            with gr.Column(scale=3, min_width=280):
                _sliders()
                pictures = gr.HTML(message_html(WELCOME), elem_id="pictures", min_height=200)
                _download(desk, session)
        _on_change(desk, file, session, photograph, classes, methods, pictures)
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    page.state_session_capacity = SESSIONS
    return page


def _on_change(
    desk: Desk,
    file: "gr.File",
    session: "gr.State",
    photograph: "gr.HTML",
    classes: "gr.Dropdown",
    methods: "gr.CheckboxGroup",
    pictures: "gr.HTML",
) -> None:
    """Whatever is dropped or chosen is explained at once; of several changes meanwhile only the last one counts."""
    import gradio as gr

    tracked = gr.Progress()  # as a default it is replaced by the event's own

    def explain(opened: Any, chosen: Any, asked: Any, request: gr.Request, tell: Any = tracked) -> Any:
        return desk.explain(opened, chosen, asked, str(request.session_hash), tell)

    def explain_opened(opened: Any, chosen: Any, asked: Any, request: gr.Request, tell: Any = tracked) -> Any:
        return (None, gr.skip()) if opened is None else explain(opened, chosen, asked, request, tell)

    wanted, shown = [session, classes, methods], [session, pictures]
    for event in (file.upload, file.clear):
        opening = event(desk.open, [file], [session, photograph, classes, pictures], concurrency_id="work")
        opening.success(explain_opened, wanted, shown, concurrency_id="work")
    for event in (classes.input, methods.input):
        event(explain, wanted, shown, concurrency_id="work", trigger_mode="always_last")


def _stop_button(desk: Desk, page: "gr.Blocks") -> None:
    """It does not wait for what it stops; a visitor who closes the page has stopped as well."""
    import gradio as gr

    def stop(request: gr.Request) -> None:
        if not desk.runs.stop(str(request.session_hash)):
            gr.Info(IDLE)

    def leave(request: gr.Request) -> None:
        desk.runs.stop(str(request.session_hash))

    button = gr.Button("Stop", size="sm", elem_id="stop")
    button.click(stop, None, None, concurrency_id="stop", concurrency_limit=None)
    page.unload(leave)


def _sliders() -> None:
    """They change the picture in the browser; the server hears nothing of it."""
    import gradio as gr

    with gr.Row():
        opacity = gr.Slider(0, 100, round(100 * OPACITY), step=1, label="Opacity, %", elem_id="opacity")
        threshold = gr.Slider(0, 100, round(100 * THRESHOLD), step=1, label="Threshold, %", elem_id="threshold")
    for slider in (opacity, threshold):
        slider.change(None, [opacity, threshold], None, js=SLIDERS)


def _download(desk: Desk, session: "gr.State") -> None:
    import gradio as gr

    kinds = gr.CheckboxGroup(
        list(KINDS), value=list(desk.choice.kinds), label="In the download, at the photograph's own size",
        elem_id="kinds",
    )  # fmt: skip
    button = gr.Button("Download", elem_id="pack")
    link = gr.DownloadButton("Save", elem_id="download", visible="hidden")
    button.click(desk.pack, [session, kinds], link, concurrency_id="work").success(None, None, None, js=SAVE)
