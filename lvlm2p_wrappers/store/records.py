"""What a store keeps: answers, and the calls that brought them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Outcome = Literal["ok", "bad_reply", "error"]


class Answer(NamedTuple):
    """A validated reply.

    Attributes:
        text: the reply, as JSON text.
        model: the model that really answered.
    """

    text: str
    model: str


class StoredAnswer(NamedTuple):
    """An answer as the store lists it; ``at`` is when it arrived, in seconds since 1970."""

    key: str
    answer: Answer
    at: float


@dataclass(frozen=True)
class Turn:
    """One message of a call: who speaks, the text, and the picture as PNG bytes."""

    role: str
    text: str
    png: bytes | None = None


@dataclass(frozen=True)
class Call:
    """One request to a model, and what became of it.

    Attributes:
        key: the digest of everything that the reply may depend on.
        stage: ``"analysis"`` or ``"action"``.
        env_id: the environment the picture is of; may be empty.
        requested_model: the model string that was asked.
        messages: the rendered conversation that was sent.
        schema: the JSON schema of the reply, as JSON text.
        options: the sampling options, as JSON text.
        reply: the raw text that came back; None where nothing came.
        answered_model: the model that the provider says it used.
        outcome: ``"ok"``, ``"bad_reply"`` (a reply that cannot be used) or ``"error"`` (no reply).
        problem: what was wrong, in words.
        status: the HTTP status, where there was one.
        attempt: 1 for the first request of a conversation turn, 2 for its first retry.
        latency_s: seconds from sending to settling.
        prompt_tokens: tokens sent, as the provider counts them; None where unknown.
        completion_tokens: tokens received, likewise.
        cost_usd: US dollars; None where the model has no known price.
    """

    key: str
    stage: str
    env_id: str
    requested_model: str
    messages: tuple[Turn, ...]
    schema: str
    options: str
    reply: str | None
    answered_model: str | None
    outcome: Outcome
    problem: str = ""
    status: int | None = None
    attempt: int = 1
    latency_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None


class LoggedCall(NamedTuple):
    """A call as the store lists it; ``at`` is when it was logged, in seconds since 1970."""

    id: int
    at: float
    call: Call
