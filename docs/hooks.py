"""What the site needs beside the pages: files of the checkout that they point to, and two pages from its top."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+?)/?\)")


def on_files(files, config):
    """Add the pages, and every file outside of docs/ that a page links to, as plain text."""
    for name, source in PAGES.items():
        content = (ROOT / source).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name, content=content))
    wanted = {link for file in files.documentation_pages() for link in OUTSIDE.findall(file.content_string)}
    for link in wanted:
        if (ROOT / link).is_file():
            files.append(File.generated(config, f"checkout/{link}.txt", content=(ROOT / link).read_bytes()))
    return files


def on_page_markdown(markdown, **_):
    """Point links out of docs/ to these files; a folder has no page, and is named only."""
    markdown = re.sub(r"\[([^]]+)\]\(\.\./([\w./-]+)/\)", r"\1", markdown)
    return OUTSIDE.sub(r"](checkout/\1.txt)", markdown)


def on_page_content(html, **_):
    """Docstrings name classes as Sphinx does; the site has no roles."""
    return re.sub(r":(?:class|meth|data|func):(?=<code>)", "", html)
