"""What the tests of the report page share: names that try to become code, and a reader of HTML."""

from html.parser import HTMLParser

from benchmarks.report import Names

EVIL_CLASS = "<script>alert(1)</script>"
EVIL_IMAGE = '"><img src=x onerror=alert(2)>.jpg'
METHODS = ("explainer", "grad_cam", "rise:masks=500,seed=1")
NAMES = Names(
    [*(f"image {place}" for place in range(5)), EVIL_IMAGE], METHODS, [EVIL_CLASS, "cat", "dog", "hen", "cow"]
)

VOID = {"meta", "link", "input", "img", "br", "wbr", "fefuncr", "fefuncg", "fefuncb"}


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "attributes": dict(attributes), "text": "", "inside": []}
        for outer in self.open:
            outer["inside"].append(element)
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open[-1]["tag"] == tag, f"</{tag}> ends <{self.open[-1]['tag']}>"
            self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data


def elements(html, tag):
    """All elements with that tag: attributes, text (spaces joined) and the elements inside; each must be closed."""
    reader = _Reader()
    reader.feed(html)
    assert not reader.open
    found = [element for element in reader.found if element["tag"] == tag]
    for element in reader.found:
        if element["tag"] != "script":
            element["text"] = " ".join(element["text"].split())
    return found
