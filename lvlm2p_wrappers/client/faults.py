"""What an exception of LiteLLM's means: whose fault it is, whether to try again, and when."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from lvlm2p_wrappers.client import models
from lvlm2p_wrappers.errors import BadReplyError, ModelError, TeacherError, TransportError, without_keys

RETRIED = frozenset({200, 408, 409, 422, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass. LiteLLM reports a 200 whose body it cannot read as 200, 422 or 500."""

USERS = frozenset({400, 401, 403, 404})
"""Statuses that the same request would get again and again, until the user mends something."""

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


def classify(error: Exception, model: str, timeout_s: float) -> Fault:
    """Say what went wrong, in one short message that names the model and the way out, and never a key."""
    status = getattr(error, "status_code", None)
    status = int(status) if isinstance(status, int | str) and str(status).isdigit() else None
    kind, text = type(error).__name__, _shorten(str(error))
    if isinstance(error, asyncio.TimeoutError) or kind == "Timeout":
        return Fault(TransportError(f"{model}: no answer within {timeout_s:g} s", status=408), retry=True, status=408)
    if kind == "ContentPolicyViolationError":
        return Fault(
            BadReplyError(f"{model}: stopped by the provider's content policy: {text}", kind="refusal"), False, status
        )
    if "request_too_large" in str(error):
        status = 413  # LiteLLM makes a 400 of Anthropic's
    if _MISSING_KEY.search(str(error)):
        return Fault(models.missing_key(model), retry=False, status=status)
    if status in USERS:
        return Fault(_users_mistake(status, model, text), retry=False, status=status)
    transport = TransportError(f"{model}: {f'HTTP {status}' if status else kind}: {text}", status=status)
    return Fault(transport, status is None or status in RETRIED, status, _asked_wait(error))


def _users_mistake(status: int, model: str, text: str) -> ModelError:
    if status == 404:
        return models.gone(model, text)
    if status == 401:
        return ModelError(f"{model}: the provider refused the key in {models.key_names(model)}. It said: {text}")
    if status == 403:
        return ModelError(f"{model}: the provider does not allow this; check what the key may use. It said: {text}")
    return ModelError(f"{model}: the provider cannot work with the request (HTTP 400). It said: {text}")


def _asked_wait(error: Exception) -> float | None:
    """Seconds from a Retry-After header, or from the RetryInfo that Gemini puts into the body."""
    headers: Any = (
        getattr(error, "litellm_response_headers", None)
        or getattr(getattr(error, "response", None), "headers", None)
        or {}
    )
    asked = headers.get("retry-after") or headers.get("Retry-After")
    if asked is None and (found := _RETRY_DELAY.search(str(error))):
        asked = found.group(1)
    try:
        return min(float(asked), _MOST_SECONDS) if asked is not None else None
    except ValueError:  # an HTTP date, which none of the providers sends
        return None


def _shorten(text: str) -> str:
    """One line, without keys, LiteLLM's own prefix, and the traceback that some of its errors carry."""
    text = text.split("Traceback (most recent call last)")[0]
    text = re.sub(r"^litellm\.\w+: ", "", without_keys(re.sub(r"\s+", " ", text)).strip())
    return text if len(text) <= 300 else text[:300] + " ..."
