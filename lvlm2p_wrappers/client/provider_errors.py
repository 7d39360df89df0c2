"""What a failed call means (a 401, a 404, a 429, no answer): what was said, whose fault it is, whether to try again."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenacity import RetryCallState

from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.errors import ModelError, TeacherError, TransportError
from lvlm2p_wrappers.redaction import short

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""The pauses between attempts, where the provider names none: from the first on, each is twice as long as the last."""

RETRIED = frozenset({200, 408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass; a 200 among the faults is an answer that could not be read."""

USERS = frozenset({401, 402, 403, 404})
"""Statuses that every request would get, until the user mends something."""

TURNED_AWAY = frozenset({*range(300, 400), 400, 401, 402, 403, 404, 409, 413, 422, 425, 429, 503, 529})
"""Statuses of a request that no model has seen, so that nothing was billed for it; after any other it may have been."""

_MISSING_KEY = re.compile(
    r"missing.{0,30}(api.?key|credentials)|unable to locate credentials|credentials were not found", re.IGNORECASE
)
_REFUSED_KEY = re.compile(r"api.?key.{0,4}(not.?valid|invalid|expired)", re.IGNORECASE)
_RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')
_MOST_SECONDS = 120.0


@dataclass
class Traffic:
    """The HTTP of a call: what LiteLLM's errors tell of it depends on words that the provider chose.

    Attributes:
        requests: method and URL of each request.
        status: that of the last response of which all has arrived; None where there is none.
    """

    requests: set[tuple[str, str]] = field(default_factory=set)
    status: int | None = None


class GuardError(Exception):
    """The guard of a call refuses a reply, and the same request would bring another such."""

    def __init__(self, message: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


class FailedCallError(Exception):
    """A failed call, classified.

    Attributes:
        error: what to raise if it is not tried again.
        status: the HTTP status, where there was one.
        retry: whether the same request may succeed later.
        wait_s: how long the provider asked to wait, where it did.
        is_sent: whether anything may have reached the provider.
    """

    def __init__(
        self,
        error: TeacherError,
        status: int | None,
        *,
        retry: bool = False,
        wait_s: float | None = None,
        is_sent: bool = True,
    ) -> None:
        super().__init__(str(error))
        self.error, self.status, self.retry, self.wait_s, self.is_sent = error, status, retry, wait_s, is_sent

    @property
    def too_many(self) -> bool:
        """Whether the provider asked for fewer requests."""
        return self.status in {429, 529}

    @property
    def turned_away(self) -> bool:
        """Whether it is certain that nothing was billed."""
        return not self.is_sent or self.status in TURNED_AWAY


def classify(error: Exception, model: str, timeout_s: float, traffic: Traffic) -> FailedCallError:
    """Say what went wrong, in one short message that names the model and the way out."""
    if isinstance(error, ModelError):  # the request was kept back
        return FailedCallError(error, None, is_sent=False)
    status, words = status_of(error, traffic), message_of(error)
    if status is None and (isinstance(error, asyncio.TimeoutError) or type(error).__name__ == "Timeout"):
        return FailedCallError(TransportError(f"{model}: no answer within {timeout_s:g} s"), None, retry=True)
    if not traffic.requests and _MISSING_KEY.search(str(error)):
        return FailedCallError(catalogue.missing_key(model), status)
    if status == 400 and _REFUSED_KEY.search(words):  # Google's word for 401
        status = 401
    if status in USERS:
        return FailedCallError(_users_mistake(status, model, words), status)
    if status == 400 and not traffic.requests:  # LiteLLM or the embedded teacher cannot work with it
        return FailedCallError(ModelError(f"{model}: the request cannot be made: {words}"), status)
    retry = status in RETRIED or (status is None and not isinstance(error, GuardError))
    what = {None: "no usable answer came", 200: "the answer could not be read"}.get(status, f"HTTP {status}")
    transport = TransportError(f"{model}: {what}: {words or type(error).__name__}", status=status)
    return FailedCallError(transport, status, retry=retry, wait_s=_asked_wait(error))


def _users_mistake(status: int | None, model: str, words: str) -> ModelError:
    if status == 404:
        return catalogue.gone(model, words)
    if status == 401:
        return ModelError(f"{model}: the provider refused the key in {catalogue.key_names(model)}. It said: {words}")
    what = "the account is out of credit" if status == 402 else "the provider does not allow this"
    return ModelError(f"{model}: {what}; check what the key may use. It said: {words}")


def pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: as long as the provider asked, else twice as long each time, with jitter."""
    fault = state.outcome.exception() if state.outcome else None
    backoff = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (state.attempt_number - 1)) * random.uniform(0.5, 1.5)
    return backoff if not isinstance(fault, FailedCallError) or fault.wait_s is None else fault.wait_s + backoff / 4


def _asked_wait(error: Exception) -> float | None:
    """Seconds from a Retry-After header, a number or a date, or from the RetryInfo that Gemini puts into the body."""
    headers = headers_of(error)
    asked = headers.get("retry-after") or headers.get("Retry-After") or ""
    if not asked and (found := _RETRY_DELAY.search(str(error))):
        asked = found[1]
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = max(0.0, seconds)
    return min(seconds, _MOST_SECONDS) if seconds >= 0 else None


# --- what the provider said, which LiteLLM buries, renaming some of its statuses ---

# "litellm.RateLimitError: RateLimitError: OpenAIException - Slow down.", and the like; then advice for programmers.
_PREFIX = re.compile(r"^((litellm\.)?(\w+ ?Error|\w+Exception( \w+Error)?|Timeout)(: | - ))+")
_SUFFIX = re.compile(r"\.? (Handle with `litellm|File an issue if litellm).*$")


def headers_of(error: Exception) -> Mapping[str, str]:
    """The headers of the HTTP response that an exception is about; empty where there was none."""
    return getattr(error, "litellm_response_headers", None) or {}


def status_of(error: Exception, traffic: Traffic) -> int | None:
    """The HTTP status that the provider sent; None where nothing, or no whole answer, came back.

    Where nothing was sent, it is what LiteLLM says instead; 200, 408 and 500 are its words for what it does not know.
    """
    if traffic.requests and not isinstance(error, GuardError):
        return traffic.status
    given = str(getattr(error, "status_code", ""))
    return int(given) if given.isdigit() and given not in {"200", "408", "500"} else None


def message_of(error: Exception) -> str:
    """What the provider said, or what happened to the connection: one short line without keys."""
    text = str(_complaint(error).get("message") or "") or _SUFFIX.sub("", _PREFIX.sub("", _plain(error)))
    return short(text)


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
