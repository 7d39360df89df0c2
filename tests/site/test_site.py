"""The site in a real browser: every page, every link, the search, and nothing from outside."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.report.browser import NONE, find_browser, open_page

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytest.importorskip("material", reason="the extra docs is not installed")

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; mkdocs is strict: a link to nowhere ends the build."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Page(HTMLParser):
    """The anchors of a page, and what it points to or loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.targets = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        target = attributes.get("href") or attributes.get("src")
        if target and tag in ("a", "img", "script", "link"):
            self.targets.append((tag, target))


def test_no_link_is_broken_and_no_page_loads_anything_from_outside(site):
    pages = {path: Page(path) for path in site.glob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for tag, target in page.targets:
            if re.match(r"[a-z]+:", target):
                assert tag == "a" or target.startswith("data:"), (path.name, target)
                continue
            name, _, anchor = target.partition("#")
            aim = (path.parent / unquote(name)).resolve() if name else path
            assert aim.exists(), (path.name, target)
            assert not anchor or aim not in pages or unquote(anchor) in pages[aim].anchors, (path.name, target)


def test_every_page_is_reached_from_the_navigation(site):
    shown = {target.partition("#")[0] for tag, target in Page(site / "index.html").targets if tag == "a"}
    pages = {path.name for path in site.glob("*.html")} - {"404.html", "index.html"}
    assert pages <= shown


@pytest.mark.skipif(find_browser() is None, reason=NONE)
def test_in_a_browser_no_page_has_an_error_or_asks_another_host(site, address):
    with open_page() as page:
        for path in sorted(site.glob("*.html")):
            if path.name != "404.html":
                page.goto(address + path.name, wait_until="networkidle")
                assert page.locator("h1").first.is_visible(), path.name
        assert page.errors == []
        assert [request for request in page.requests if not request.startswith((address, "data:"))] == []


@pytest.mark.skipif(find_browser() is None, reason=NONE)
def test_the_search_finds_a_page_by_its_words(address):
    with open_page() as page:
        page.goto(address + "index.html")
        page.locator("input.md-search__input").first.click()
        page.locator("input.md-search__input").first.press_sequentially("TeacherWrapper")
        page.wait_for_selector(".md-search-result__item a", state="attached", timeout=20_000)
        found = page.locator(".md-search-result__item a").evaluate_all("links => links.map(link => link.href)")
        assert any("reference.html" in link for link in found)
