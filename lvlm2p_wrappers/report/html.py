"""One HTML file that needs nothing else: the metrics, and every view with its whole conversation.

What a model replied is text on the page and nothing else. Jinja escapes every value; none becomes an address, a style
or a script. The page's content security policy allows the one script and the one style that are part of it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from lvlm2p_wrappers.png import png_size
from lvlm2p_wrappers.records import Episode, Evaluation, Label
from lvlm2p_wrappers.report.annotations import (
    Mark,
    analysis_verdict,
    findings,
    heading,
    marks,
    reasoning,
    reply_verdict,
)
from lvlm2p_wrappers.units import count, duration, money

SHARED_CHARS = 300
"""A message of this length that occurs more than twice is written once."""

# What a browser would obey or hide: control characters but for tab and newline, lone surrogates, and the signs that
# change the direction of text or break lines.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ufeff]"
)

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title: what it is about.
        labels: the views.
        png_of: returns the bytes of a picture's PNG file, by its digest; None where it is missing.
        evaluation: what was evaluated; None for a report on a store.
        episodes: the rollouts.
    """

    title: str
    labels: Sequence[Label]
    png_of: Callable[[str], bytes | None]
    evaluation: Evaluation | None = None
    episodes: Sequence[Episode] = ()


class Shown(NamedTuple):
    """A picture on the page: its number there, its size in pixels, and its PNG in base64."""

    number: int
    width: int
    height: int
    base64: str


class Facet(NamedTuple):
    """A property to filter by; ``counts`` has the number of views for each of its values."""

    name: str
    title: str
    counts: dict[str, int]


class SharedText(NamedTuple):
    """A text that several messages have in common, written once: its number on the page, and how many have it."""

    number: int
    uses: int


def render(report: Report) -> str:
    """The page as HTML."""
    style, script = (Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js"))
    pictures = _pictures(report)
    template = _environment().get_template("page.html.jinja")
    return template.render(
        report=report,
        pictures=pictures,
        marks=[_marks(label, pictures) for label in report.labels],
        shared=_shared_texts(report.labels),
        facets=facets(report.labels),
        facets_of=facets_of,
        findings=findings,
        reasoning=reasoning,
        style=style,
        script=script,
        policy=_policy(style, script),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(money=money, duration=duration, count=count)
    return environment


def _visible(value: Any) -> Any:
    """Every value that a template prints passes here: what cannot be seen is shown by its number."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", value.replace("\r\n", "\n"))
    return value


def _policy(style: str, script: str) -> str:
    """The content security policy: nothing from anywhere, but for the page's own style and script."""
    allowed = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{allowed[0]}'; script-src 'sha256-{allowed[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _pictures(report: Report) -> dict[str, Shown]:
    """Each picture that a browser can show, once, by its digest."""
    found: dict[str, Shown] = {}
    shown = (one for label in report.labels for one in (*label.earlier, label.picture) if one is not None)
    for digest in dict.fromkeys(picture.digest for picture in shown):
        png = report.png_of(digest)
        with contextlib.suppress(ValueError):
            if png is not None:
                found[digest] = Shown(len(found) + 1, *png_size(png), base64.b64encode(png).decode())
    return found


def _marks(label: Label, pictures: dict[str, Shown]) -> tuple[Mark, ...]:
    picture = pictures.get(label.picture.digest) if label.picture is not None else None
    return () if picture is None else marks(label, picture.width, picture.height)


def _shared_texts(labels: Iterable[Label]) -> dict[str, SharedText]:
    uses = Counter(
        message.text
        for label in labels
        for exchange in label.exchanges
        for message in exchange.messages
        if len(message.text) >= SHARED_CHARS
    )
    common = (text for text in uses if uses[text] > 2)
    return {text: SharedText(number, uses[text]) for number, text in enumerate(common, start=1)}


_FACETS = {
    "advice": "Advice",
    "analysis": "Analysis",
    "reply": "Replies",
    "heading": "Facing",
    "source": "Source",
    "env": "Environment",
    "model": "Model",
}
_ORDER = ("right", "wrong", "fatal", "none", "unjudged", "ok", "bad reply", "error", "up", "down", "left")


def facets_of(label: Label) -> dict[str, str]:
    """What a view is filtered by."""
    return {
        "advice": label.verdict,
        "analysis": analysis_verdict(label),
        "reply": reply_verdict(label),
        "heading": heading(label),
        "source": label.source or "unknown",
        "env": label.env_id or "unknown",
        "model": label.model or "unknown",
    }


def facets(labels: Sequence[Label]) -> list[Facet]:
    """What views can be filtered by: whatever is not the same for all of them."""
    tallies = {name: Counter[str]() for name in _FACETS}
    for label in labels:
        for name, value in facets_of(label).items():
            tallies[name][value] += 1

    def place(value: str) -> tuple[int, str]:
        return (_ORDER.index(value) if value in _ORDER else len(_ORDER), value)

    return [
        Facet(name, title, {value: tallies[name][value] for value in sorted(tallies[name], key=place)})
        for name, title in _FACETS.items()
        if len(tallies[name]) > 1
    ]
