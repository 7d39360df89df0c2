"""Redaction: everything foreign that is printed or stored loses the user's keys and what could steer a terminal."""

from __future__ import annotations

import base64
import functools
import html
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

MOST_QUOTED = 300
"""How much of a provider's message is quoted."""

MIN_LENGTH = 8
"""Shorter values of the environment's variables may be common words."""

# Keys by their look, also where a provider shows them with asterisks in the middle, and Google's.
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk-|gsk_|xai-|hf_)[\w*-]{6,}|\bAIza[\w-]{20,}")
_MARKS_OF_KEYS = ("sk-", "gsk_", "xai-", "hf_", "AIza")  # found in a tenth of the time
_PASSWORD_IN_URL = re.compile(r"(?:://[^\s/:@]*:|https?://)([^\s/:@]+)@")
_ENDS = ("KEY", "KEY_ID", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "JWT", "TOKEN_BEDROCK")
_ESCAPE_SEQUENCE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]?")
_INVISIBLE = rf"{_ESCAPE_SEQUENCE.pattern}|[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
_INVISIBLE += r"|\\{1,8}u(?i:00[01]\w|20[0-6]\w|00ad|feff)"
_MARK_OF_AN_ESCAPE = re.compile(rf"\\[ux\d\\/\"]|%\w\w|&[#\w]|(?![\n\r\t])(?:{_INVISIBLE})")


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
        if name.upper().endswith(_ENDS):
            found[name] = value.strip()
        elif "://" in value and (password := _PASSWORD_IN_URL.search(value)):  # a proxy's, a database's
            found[name] = unquote(password[1])
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
    spelt = [(name, spelling) for name, key in keys for spelling in sorted(_spellings(key), key=len, reverse=True)]
    escaped = [(f"<{name}>", _escaped(key)) for name, key in keys]

    def without(text: str) -> str:
        for name, spelling in spelt:
            text = text.replace(spelling, f"<{name}>")
        if _MARK_OF_AN_ESCAPE.search(text):
            for name, pattern in escaped:
                text = pattern.sub(name, text)
        return _LOOKS_LIKE_A_KEY.sub("<key>", text) if any(mark in text for mark in _MARKS_OF_KEYS) else text

    remembering = functools.lru_cache(maxsize=64)(without)  # a store's log repeats prompts and schemas with every call
    return lambda text: remembering(text) if len(text) < 2**16 else without(text)


def _spellings(key: str) -> Iterator[str]:
    """A key as it is, in hexadecimal, and within a longer text in base64, as in "user:key"."""
    raw = key.encode("utf-8", "surrogateescape")
    yield from (key, raw.hex())
    for before in range(3):  # base64 depends on where in a group of three bytes the key begins; its ends on neighbours
        whole = base64.b64encode(bytes(before) + raw).decode()
        part = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield from (part, part.replace("+", "-").replace("/", "_"))


def _escaped(key: str) -> re.Pattern[str]:
    """A key each of whose characters may be escaped, once or several times over, with invisible ones between them."""
    return re.compile(f"(?:{_INVISIBLE}){{0,8}}".join(map(_escaped_character, key)))


def _escaped_character(c: str) -> str:
    """A character as it is, in JSON and other strings, in a URL and in HTML; the limits keep a match from lasting."""
    code, zeros = ord(c), "0{0,6}"
    in_string = rf"\\{{1,8}}(?:u\{{?{zeros}{code:x}\}}?|x{code:02x}|{zeros}{code:o})"
    in_url = "".join(f"%(?:25){{0,4}}{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))
    in_html = rf"&(?:amp;){{0,4}}(?:#{zeros}{code};?|#x{zeros}{code:x};?|{re.escape(html.escape(c).strip('&'))})"
    return rf"(?:\\{{0,8}}{re.escape(c)}|(?i:{in_string}|{in_url}|{in_html}))"
