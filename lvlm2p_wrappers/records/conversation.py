"""A conversation with a model: messages, questions, replies, answers, and the log of calls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.records.record import AnyPicture, Integer, Record

Role = Literal["system", "user", "assistant", "reply"]
Stage = Literal["analysis", "action"]
Outcome = Literal["ok", "bad_reply", "error"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks: ``"system"``, ``"user"`` or ``"assistant"``.
        text: the text.
        picture: the picture that follows the text, if any.
    """

    role: Role
    text: str
    picture: AnyPicture | None = None


class Schema:
    """A JSON schema and its text; compared by identity, since one object serves every view.

    Attributes:
        json: the schema.
        text: the schema as one line of JSON.
    """

    def __init__(self, json_schema: dict[str, Any]) -> None:
        self.json = json_schema
        self.text = json.dumps(json_schema)


class Question(NamedTuple):
    """The request of one stage: the conversation, the schema of its reply, and how a reply is checked.

    ``read`` takes a raw reply and returns the checked answer as JSON text, or raises ``BadReplyError``.
    ``repair`` takes the question, a bad reply and what is wrong with it, and returns the question of the repair turn.
    """

    stage: Stage
    env_id: str
    messages: tuple[Message, ...]
    schema: Schema
    sampling: Mapping[str, Any]
    read: Callable[[str], str]
    repair: Callable[[Question, str, str], Question]


class Usage(NamedTuple):
    """The tokens of a call, as the provider counts them; ``cached`` and ``written`` are among the prompt's.

    The former are read from the provider's prompt cache, the latter written to it.
    """

    prompt: int
    completion: int
    cached: int
    written: int = 0


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back of a request.

    Attributes:
        text: the reply; ``""`` if there was none.
        model: the model that says it answered.
        finish: why it stopped, in LiteLLM's words.
        refusal: the provider's words where it refused, else ``""``.
        usage: the tokens that are billed; None where the provider does not say, or cannot be believed.
        cost_usd: None if the model has no known price, or the usage is not known.
        latency_s: seconds.
        attempt: 1 for the first request, more after retries.
    """

    text: str
    model: str
    finish: str
    refusal: str
    usage: Usage | None
    cost_usd: float | None
    latency_s: float
    attempt: int = 1

    def usable(self) -> str:
        """The text, to be read.

        Raises:
            BadReplyError: if there is none, or the provider says that it is a refusal.
        """
        if self.refusal:
            raise BadReplyError(f"the model refused: {self.refusal}", kind="refusal")
        if self.finish == "content_filter":
            raise BadReplyError("the provider's content filter stopped the reply", kind="refusal")
        if not self.text.strip() and self.finish == "length":
            raise BadReplyError(
                "the reply was cut off before it began: max_tokens went into thinking", kind="truncated"
            )
        if not self.text.strip():
            raise BadReplyError("the reply is empty", kind="empty")
        return self.text


class Answer(NamedTuple):
    """A validated reply: its JSON text, and the model that really answered."""

    text: str
    model: str


class StoredAnswer(NamedTuple):
    """An answer as the store lists it; ``at`` is when it arrived, in seconds since 1970."""

    key: str
    answer: Answer
    at: float


class Call(Record):
    """One request to a model, and what became of it.

    Attributes:
        key: the digest of everything that the reply may depend on.
        stage: ``"analysis"`` or ``"action"``.
        env_id: the environment the picture is of; may be empty.
        requested_model: the model string that was asked.
        messages: the rendered conversation that was sent.
        schema_text: the JSON schema of the reply, as JSON text.
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
    stage: Stage
    env_id: str
    requested_model: str
    messages: tuple[Message, ...]
    schema_text: str
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

    @classmethod
    def of(
        cls, model: str, question: Question, sampling: Mapping[str, Any], *, key: str, reply: Reply | None = None
    ) -> Self:
        """A request for the log: an error until there is a reply, then a success until it is judged.

        Args:
            model: who was asked.
            question: what was asked.
            sampling: with which options.
            key: that of the question, which may be the one that this repairs.
            reply: what came back, if anything did.
        """
        asked: dict[str, Any] = dict(
            key=key,
            stage=question.stage,
            env_id=question.env_id,
            requested_model=model,
            messages=question.messages,
            schema_text=question.schema.text,
            options=json.dumps(dict(sampling)),
        )
        if reply is None:
            return cls(**asked, reply=None, answered_model=None, outcome="error")
        return cls(
            **asked,
            reply=reply.text,
            answered_model=reply.model,
            outcome="ok",
            attempt=reply.attempt,
            latency_s=reply.latency_s,
            prompt_tokens=reply.usage.prompt if reply.usage else None,
            completion_tokens=reply.usage.completion if reply.usage else None,
            cost_usd=reply.cost_usd,
        )


class LoggedCall(NamedTuple):
    """A call as the store lists it; ``at`` is when it was logged, in seconds since 1970."""

    id: int
    at: float
    call: Call


class Exchange(Record):
    """One stage of a conversation, as it was held when it was paid for, or as it would be held.

    Attributes:
        stage: ``"analysis"`` or ``"action"``.
        messages: what was sent with the call that brought the answer, or with the last call; else what would be sent.
        reply: the raw text that came back to these messages; None if nothing came, or nobody was asked.
        answer: the checked answer as JSON text; None where there is none.
        model: the model that answered; None where nothing came back.
        outcome: ``"ok"``, ``"bad_reply"`` or ``"error"``; None if nobody was asked.
        problem: what was wrong, in words; ``""`` where nothing was.
        latency_s: seconds, retries and the repair turn included; None where the log does not say.
        prompt_tokens: tokens sent, likewise.
        completion_tokens: tokens received, likewise.
        cost_usd: US dollars, likewise; None also where a reply's price is not known.
        at: when the last call was logged, in seconds since 1970; None where there is none in the log.
        call: the number of the call in the store's log; None where it stands for several calls.
    """

    stage: Stage
    messages: tuple[Message, ...]
    reply: str | None
    answer: str | None = None
    model: str | None
    outcome: Outcome | None
    problem: str
    latency_s: float | None
    prompt_tokens: Integer | None
    completion_tokens: Integer | None
    cost_usd: float | None
    at: float | None = None
    call: Integer | None = None


def total(costs: Sequence[float | None]) -> float | None:
    """The sum of some calls' costs; None if one of them is unknown."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
