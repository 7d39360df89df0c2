"""Redaction: everything foreign that is printed or stored loses the user's keys and what could steer a terminal."""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import quote

MOST_QUOTED = 300
"""How much of a provider's message is quoted."""

MIN_LENGTH = 8
"""Shorter values of the environment's variables may be common words."""

# Keys by their look, also where a provider shows them with asterisks in the middle, and Google's.
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk-|gsk_|xai-|hf_)[\w*-]{6,}|\bAIza[\w-]{20,}")
_MARKS_OF_KEYS = ("sk-", "gsk_", "xai-", "hf_", "AIza")  # found in a tenth of the time
_PASSWORD_IN_URL = re.compile(r"://[^\s/:@]*:([^\s/@]+)@")
_ESCAPE_SEQUENCE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]?")


def without_keys(text: str) -> str:
    """The text without the keys of the environment, however they are encoded: providers echo keys.

    >>> without_keys("Incorrect API key provided: sk-proj-12**********89.")
    'Incorrect API key provided: <key>.'
    """
    return key_remover()(text)


def key_remover() -> Callable[[str], str]:
    """:func:`without_keys` for many texts: the environment is read once, now."""
    return _remover(tuple(keys_in_environment().items()))


def keys_in_environment() -> dict[str, str]:
    """The keys, tokens and passwords in the environment by the names of their variables, the longest first.

    The order matters to whoever replaces them: one may be the beginning of another.
    """
    found = {}
    for name, value in os.environ.items():
        if name.upper().endswith(("KEY", "KEY_ID", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS")):
            found[name] = value.strip()
        elif "://" in value and (password := _PASSWORD_IN_URL.search(value)):  # a proxy's, a database's
            found[name] = password[1]
    long_enough = [(name, value) for name, value in found.items() if len(value) >= MIN_LENGTH]
    return dict(sorted(long_enough, key=lambda item: -len(item[1])))


def printable(text: str) -> str:
    r"""The text without what steers a terminal or hides words: escape sequences, control characters, bidi signs.

    >>> printable("busy\x1b]0;hello\x07, \x1b[31mtry\u202e again")
    'busy, try again'
    """
    text = _ESCAPE_SEQUENCE.sub("", text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})


def short(text: str) -> str:
    """The beginning of a text, on one line and without keys."""
    text = re.sub(r"\s+", " ", printable(without_keys(text)[:10_000])).strip()  # it may be megabytes
    return text if len(text) <= MOST_QUOTED else text[:MOST_QUOTED] + " ..."


@functools.lru_cache(maxsize=8)
def _remover(keys: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    names = {spelling: name for name, key in reversed(keys) for spelling in _spellings(key)}
    longest_first = sorted(names, key=len, reverse=True)

    def without(text: str) -> str:
        for spelling in longest_first:
            text = text.replace(spelling, f"<{names[spelling]}>")
        return _LOOKS_LIKE_A_KEY.sub("<key>", text) if any(mark in text for mark in _MARKS_OF_KEYS) else text

    remembering = functools.lru_cache(maxsize=64)(without)  # a store's log repeats prompts and schemas with every call
    return lambda text: remembering(text) if len(text) < 2**16 else without(text)


def _spellings(key: str) -> Iterator[str]:
    """A key as it is, in JSON, in a URL, in HTML, and within a longer text in base64, as in "user:key"."""
    in_json = json.dumps(key)[1:-1]
    in_url = quote(key, safe="")
    yield from (key, in_json, in_json.replace("/", "\\/"), html.escape(key))
    yield from (in_url, quote(key), re.sub("%..", lambda found: found[0].lower(), in_url))
    raw = key.encode("utf-8", "surrogateescape")
    for before in range(3):  # base64 depends on where in a group of three bytes the key begins; its ends on neighbours
        whole = base64.b64encode(bytes(before) + raw).decode()
        part = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield from (part, part.replace("+", "-").replace("/", "_"))
