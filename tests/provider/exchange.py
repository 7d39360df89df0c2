"""The provider's own account of a request: what was asked, what was sent, what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .conversation import Outcome, Seen


@dataclass
class Exchange:
    """One request and what was done with it, by the provider's own account.

    Attributes:
        seen: the request; its pictures are ``seen.pictures``.
        fault: the name of the fault that was played, if any.
        status: the HTTP status sent; None while, or when, none was.
        answer: the text of the model's answer, where a whole one was sent.
        body: the body sent, where a whole one was.
        tokens: those read and those written, as billed.
        cost_usd: what the provider charges, whether or not the client got anything for it.
        received: when the request had arrived, in seconds of `time.monotonic`.
        sent: when the reply had been written; None when it was not.
    """

    seen: Seen
    fault: str | None = None
    status: int | None = None
    answer: str | None = None
    body: str = ""
    tokens: tuple[int, int] = (0, 0)
    cost_usd: float = 0.0
    received: float = field(default_factory=time.monotonic)
    sent: float | None = None

    def charge(self, price: tuple[float, float], outcome: Outcome) -> None:
        """Bill a request that reached the model."""
        self.tokens = (self.seen.tokens, outcome.tokens(self.seen))
        self.cost_usd = sum(count * each for count, each in zip(self.tokens, price, strict=True)) / 1e6

    def close(self, status: int, content: bytes, answer: str | None = None) -> None:
        """Note what is sent; before its last byte is, so that no client can be faster than the log."""
        self.status, self.body, self.answer = status, content.decode(errors="replace"), answer
        self.sent = time.monotonic()

    def reopen(self) -> None:
        """The client left before all was sent."""
        self.status, self.body, self.answer, self.sent = None, "", None, None

    def as_dict(self) -> dict[str, Any]:
        """A summary for other processes, without pictures and bodies."""
        asked = {"provider": self.seen.provider, "model": self.seen.model, "digest": self.seen.digest.hex()}
        return asked | {name: value for name, value in vars(self).items() if name not in ("seen", "body")}
