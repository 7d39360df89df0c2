"""What every wire format says in its own words: a request with pictures and a schema, and what came of it."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiohttp import web

# The name of a finish is ours; each wire format has its own word or its own shape for it.
Finish = Literal["stop", "length", "refusal", "filter", "empty", "none"]

TOKENS_PER_PICTURE = 258
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Turn:
    """One message: who spoke, the text, and the pictures as encoded bytes."""

    role: str
    text: str
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Seen:
    """A request as the provider understood it; the system prompt is the first turn."""

    provider: str
    model: str
    key: str | None
    turns: tuple[Turn, ...]
    schema: dict[str, Any] | None
    options: dict[str, Any] = field(default_factory=dict)
    tokens_per_picture: int = TOKENS_PER_PICTURE

    @property
    def pictures(self) -> tuple[bytes, ...]:
        return tuple(picture for turn in self.turns for picture in turn.pictures)

    @property
    def digest(self) -> bytes:
        """32 bytes that depend on the pictures, or on the text where there is none."""
        parts = self.pictures or tuple(turn.text.encode() for turn in self.turns)
        return hashlib.sha256(b"\0".join(parts)).digest()

    @property
    def tokens(self) -> int:
        characters = sum(len(turn.text) for turn in self.turns)
        return characters // CHARACTERS_PER_TOKEN + self.tokens_per_picture * len(self.pictures)

    @property
    def asks_for_an_action(self) -> bool:
        return "probabilities" in (self.schema or {}).get("properties", {})


@dataclass(frozen=True)
class Outcome:
    """What the model made of a request: its text, how it ended, and the tokens it is billed for.

    Attributes:
        text: the reply.
        finish: how it ended.
        thinking_tokens: tokens that went before the text.
        report: makes of the true tokens, sent and received, what the provider says they were; None leaves usage out.
        model: the model that the provider says it used, if not the one that was asked; ``{key}`` stands for the key.
    """

    text: str
    finish: Finish = "stop"
    thinking_tokens: int = 0
    report: Callable[[tuple[int, int]], tuple[Any, Any] | None] = field(default=lambda honest: honest, compare=False)
    model: str = ""

    def tokens(self, seen: Seen) -> int:
        """Tokens of the reply, thinking included; a provider never bills more than it was allowed to write."""
        wrote = len(self.text) // CHARACTERS_PER_TOKEN + 1 + self.thinking_tokens
        return min(wrote, seen.options.get("max_tokens") or wrote)

    def reported(self, seen: Seen) -> tuple[Any, Any] | None:
        """Tokens sent and received, as the provider reports them."""
        return self.report((seen.tokens, self.tokens(seen)))

    def answered(self, seen: Seen) -> str:
        """The model that the provider says it used."""
        return self.model.replace("{key}", seen.key or "no key") or seen.model


@dataclass(frozen=True)
class Refused:
    """An HTTP error that a provider answers with, before it is put into the provider's words."""

    status: int
    message: str
    retry_after: float | None = None
    as_date: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The header that says when to come back: in seconds, or as a date, which has whole seconds only."""
        if self.retry_after is None:
            return {}
        if self.as_date:
            return {"Retry-After": email.utils.formatdate(math.ceil(time.time() + self.retry_after), usegmt=True)}
        return {"Retry-After": f"{self.retry_after:g}"}


class Wire(Protocol):
    """One provider's format: how it is reached, and how it reads requests and writes replies."""

    name: str
    model: str
    """The LiteLLM model string that a user would write."""
    base: str
    """What a user's base URL ends with, after the server's own URL."""
    route: str
    """The path below ``base`` where requests arrive, in aiohttp's syntax."""
    key: str
    needs_key: bool
    price: tuple[float, float]
    """Dollars per million tokens in and out, of ``model``."""
    filter_error: Refused | None
    """The error that stands for a filtered reply, where the format has no word for one."""

    def read(self, request: web.Request, body: dict[str, Any]) -> Seen:
        """Understand a request."""

    def objection(self, body: dict[str, Any]) -> str | None:
        """What the real provider would refuse this request for, with status 400."""

    def write(self, seen: Seen, outcome: Outcome) -> dict[str, Any]:
        """Put an outcome into the provider's words."""

    def unknown_key(self, key: str | None) -> Refused:
        """The answer to a key that the provider does not know."""

    def unknown_model(self, model: str) -> Refused:
        """The answer to a model that the provider does not have, or has no more."""

    def error(self, refused: Refused) -> tuple[dict[str, Any], dict[str, str]]:
        """The body and the headers of an error."""


def decode_data_url(url: str) -> bytes:
    """The bytes of a ``data:image/png;base64,...`` URL."""
    head, _, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise ValueError(f"a picture must be a data URL, got {url[:40]!r}")
    return base64.b64decode(data, validate=True)
