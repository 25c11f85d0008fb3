"""A browser for tests, which notes what pages complain about and ask for."""

import pytest

from benchmarks.browser import REMEDY, find_browser

SECONDS = 180
"""That a busy machine may take to open a page, or for anything else."""


def require_browser():
    """A Chromium's program; the tests that want one are skipped where there is none."""
    found = find_browser()
    if found is None:
        pytest.skip(f"there is no Chromium; {REMEDY}")
    return found


class Watch:
    """Opens pages, and keeps what they complain about and what they ask for."""

    def __init__(self, context):
        context.set_default_timeout(SECONDS * 1000)
        self.context, self.complaints, self.requests = context, [], []

    def open(self, address):
        tab = self.context.new_page()
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}") or dialog.dismiss())
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.goto(address)
        return tab
