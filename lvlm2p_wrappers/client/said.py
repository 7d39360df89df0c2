"""What a provider said, out of LiteLLM's exceptions, which bury its words and rename some of its statuses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lvlm2p_wrappers.errors import without_keys

MOST_CHARS = 300

_ANTHROPICS = {"request_too_large": 413, "overloaded_error": 529}  # which LiteLLM makes 400 and 500 of

# "litellm.RateLimitError: RateLimitError: OpenAIException - Slow down.", and the like; then advice for programmers.
_PREFIX = re.compile(r"^((litellm\.)?(\w+ ?Error|\w+Exception( \w+Error)?|Timeout)(: | - ))+")
_SUFFIX = re.compile(r"\.? (Handle with `litellm|File an issue if litellm).*$")


def headers(error: Exception) -> Mapping[str, str]:
    """The headers of the HTTP response that an exception is about; empty where there was none."""
    return getattr(error, "litellm_response_headers", None) or {}


def status(error: Exception) -> int | None:
    """The HTTP status that the provider sent; None where nothing, or no whole answer, came back.

    LiteLLM reports a lost connection as 500, its own waiting as 408, and an answer that it cannot read (status 200) as
    200, 422 or 500.
    """
    given = str(getattr(error, "status_code", ""))
    code = int(given) if given.isdigit() else None
    said = _complaint(error)
    if said:
        own = said.get("code")
        return _ANTHROPICS.get(str(said.get("type")), own if isinstance(own, int) and 400 <= own < 600 else code)
    if not headers(error):
        return None if code in {200, 408, 500} else code
    unreadable = code == 200 or type(error).__name__ == "APIConnectionError" or "valid response block" in str(error)
    return 200 if unreadable else code


def words(error: Exception) -> str:
    """What the provider said, or what happened to the connection: one short line without keys."""
    text = str(_complaint(error).get("message") or "") or _SUFFIX.sub("", _PREFIX.sub("", _plain(error)))
    return short(text)


def short(text: str) -> str:
    """The beginning of a text, on one line and without keys."""
    text = re.sub(r"\s+", " ", without_keys(text)[:10_000]).strip()  # it may be megabytes
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + " ..."


def _plain(error: Exception) -> str:
    """Some of LiteLLM's messages end with a whole traceback."""
    return re.sub(r"\s+", " ", str(error).split("Traceback (most recent call last)")[0]).strip()


def _complaint(error: Exception) -> dict[str, Any]:
    """The error object in a provider's answer, empty if there is none: all call it "error"; Ollama's is mere text."""
    text = str(error)
    start = text.find("{")
    if start < 0:
        return {}
    try:
        body, _ = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return {}
    said = body.get("error")
    return {"message": said} if isinstance(said, str) else said if isinstance(said, dict) else {}
