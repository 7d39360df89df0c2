"""What an exception of LiteLLM's means: whose fault it is, whether to try again, and when."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from lvlm2p_wrappers.client import models, said
from lvlm2p_wrappers.errors import ModelError, TeacherError, TransportError

RETRIED = frozenset({200, 408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass; a 200 among the faults is an answer that could not be read."""

USERS = frozenset({400, 401, 403, 404})
"""Statuses that the same request would get again and again, until the user mends something."""

TURNED_AWAY = frozenset({400, 401, 403, 404, 409, 413, 422, 425, 429, 503, 529})
"""Statuses of a request that no model has seen, so that nothing was billed for it; after any other it may have been."""

_MISSING_KEY = re.compile(r"missing.{0,30}(api.?key|credentials)", re.IGNORECASE)
_RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')
_MOST_SECONDS = 120.0


@dataclass(frozen=True)
class Fault:
    """A failed call, classified.

    Attributes:
        error: what to raise if it is not tried again.
        retry: whether the same request may succeed later.
        status: the HTTP status, where there was one.
        wait_s: how long the provider asked to wait, where it did.
    """

    error: TeacherError
    retry: bool
    status: int | None
    wait_s: float | None = None

    @property
    def too_many(self) -> bool:
        """Whether the provider asked for fewer requests."""
        return self.status in {429, 529}

    @property
    def turned_away(self) -> bool:
        """Whether it is certain that nothing was billed."""
        return self.status in TURNED_AWAY


def classify(error: Exception, model: str, timeout_s: float) -> Fault:
    """Say what went wrong, in one short message that names the model and the way out, and never a key."""
    status, words = said.status(error), said.words(error)
    if status is None and (isinstance(error, asyncio.TimeoutError) or type(error).__name__ == "Timeout"):
        return Fault(TransportError(f"{model}: no answer within {timeout_s:g} s"), retry=True, status=None)
    if _MISSING_KEY.search(str(error)):
        return Fault(models.missing_key(model), retry=False, status=status)
    if status in USERS:
        return Fault(_users_mistake(status, model, words), retry=False, status=status)
    what = {None: "no usable answer came", 200: "the answer could not be read"}.get(status, f"HTTP {status}")
    transport = TransportError(f"{model}: {what}: {words or type(error).__name__}", status=status)
    return Fault(transport, status is None or status in RETRIED, status, _asked_wait(error))


def _users_mistake(status: int | None, model: str, words: str) -> ModelError:
    if status == 404:
        return models.gone(model, words)
    if status == 401:
        return ModelError(f"{model}: the provider refused the key in {models.key_names(model)}. It said: {words}")
    if status == 403:
        return ModelError(f"{model}: the provider does not allow this; check what the key may use. It said: {words}")
    return ModelError(f"{model}: the provider cannot work with the request (HTTP 400). It said: {words}")


def _asked_wait(error: Exception) -> float | None:
    """Seconds from a Retry-After header, or from the RetryInfo that Gemini puts into the body."""
    headers = said.headers(error)
    asked = headers.get("retry-after") or headers.get("Retry-After")
    if asked is None and (found := _RETRY_DELAY.search(str(error))):
        asked = found.group(1)
    try:
        seconds = float(asked or "nan")
    except ValueError:  # an HTTP date, which none of the providers sends
        return None
    return min(seconds, _MOST_SECONDS) if seconds >= 0 else None
