"""A headless Chromium for whoever opens report pages: `python benchmarks/browser.py` fetches one if there is none.

Taken is, in this order: the program that CHROMIUM names, playwright's own, one that the system has, one that was
fetched before. Fetched is playwright's own or, where its server can't be reached, the build for servers that npm has
(into this environment's folder; nothing is installed into the system). Where neither works, a package of the system
does: `apt-get install chromium`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAMS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
NPM_PACKAGE = "@sparticuz/chromium@153.0.0"
SECONDS = 240
"""For a download."""
REMEDY = "set CHROMIUM to a Chromium or Chrome, or install one: `make browser`, or `apt-get install chromium`"
ARGUMENTS = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
"""The sandbox needs rights that containers lack, and the pages are our own; they are to work without a network."""
UNPACK = "import chromium from '@sparticuz/chromium'; await chromium.executablePath();"
"""The package holds the program compressed, and unpacks it into the folder for temporary files."""
BARE_MACHINE = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}
"""Makes the package unpack the libraries too that a system without a desktop lacks."""


def fetched() -> Path:
    """Where the program from npm lies."""
    return Path(sys.prefix) / "share" / "chromium" / "chromium"


def find_browser() -> Path | None:
    """A Chromium's program; None if there is none.

    Raises:
        FileNotFoundError: if CHROMIUM names a program that is not there.
    """
    named = os.environ.get("CHROMIUM")
    if named:
        if not (program := shutil.which(named)):
            raise FileNotFoundError(f"CHROMIUM is {named}, which is no program; unset it, or name one.")
        return Path(program)
    system = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    return next((file for file in (*_playwrights(), *system, fetched()) if file.is_file()), None)


def _playwrights() -> list[Path]:
    """Playwright's own, whether it was downloaded or not."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return [Path(playwright.chromium.executable_path)]


def fetch_browser() -> Path | None:
    """Download one; None where that does not work."""
    _call([sys.executable, "-m", "playwright", "install", "chromium"])
    if (found := find_browser()) is None and shutil.which("npm"):
        _fetch_from_npm()
    return found or find_browser()


def _fetch_from_npm() -> None:
    folder = fetched().parent
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "unpack.mjs"
    script.write_text(UNPACK)
    if _call(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), NPM_PACKAGE]):
        _call(["node", str(script)], **BARE_MACHINE, TMPDIR=str(folder))
        shutil.rmtree(folder / "node_modules", ignore_errors=True)


def _environment(program: Path) -> dict[str, str]:
    """Where the fetched program finds libraries that the system may lack."""
    libraries = fetched().parent / "al2023" / "lib"
    known = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": ":".join(filter(None, (known, str(libraries))))} if program == fetched() else {}


def _call(command: list[str], **environment: str) -> bool:
    """Whether it worked; what it says is shown only if it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=os.environ | environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return False
    if done.returncode:
        print(f"`{' '.join(command)}` failed:\n{(done.stderr or done.stdout)[-500:]}", file=sys.stderr)
    return done.returncode == 0


@contextmanager
def launched(program: Path | None = None) -> Iterator["Browser"]:
    """A running headless browser, found if it is not given.

    Raises:
        FileNotFoundError: if there is none.
    """
    from playwright.sync_api import sync_playwright

    program = program or find_browser()
    if program is None:
        raise FileNotFoundError(f"There is no Chromium; {REMEDY}.")
    environment = {**os.environ, **_environment(program)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS], env=environment)
        try:
            yield browser
        finally:
            browser.close()


def main() -> None:
    """Fetch one if needed, and say which is used; no browser is no error, as the tests that want one say so."""
    program = find_browser() or fetch_browser()
    print(f"Browser for the tests of the report page: {program or f'none; {REMEDY}'}")


if __name__ == "__main__":
    main()
