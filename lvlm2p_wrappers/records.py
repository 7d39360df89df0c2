"""The records that teacher, store, evaluation and report share, each of them defined once.

Their fields are what the evaluation's files and the report show: whoever renames one breaks a test, not a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from lvlm2p_wrappers.picture import Picture

Role = Literal["system", "user", "assistant", "reply"]
Stage = Literal["analysis", "action"]
Outcome = Literal["ok", "bad_reply", "error"]
Source = Literal["random", "student", "expert"]
Way = Literal["argmax", "sampled"]
Verdict = Literal["right", "wrong", "fatal", "unjudged", "none"]


class Record(BaseModel):
    """A record that may come from a file: what it does not know it refuses, and infinity and NaN are no numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


# --- a conversation ---


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
    picture: Picture | None = None


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
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    at: float | None = None
    call: int | None = None


# --- a label, and what it is held against ---


class Failure(Record):
    """Why a question stayed without an answer; ``kind`` is that of :class:`BadReplyError`, or the transport's."""

    kind: str
    message: str


class Place(Record):
    """A thing and its cell; row and column as printed beside the picture."""

    what: str
    row: int
    column: int


class GroundTruth(Record):
    """The environment's own state at one moment, and what the actions are worth in it. No teacher gets to see it.

    Attributes:
        row: the agent's row, as printed beside the picture.
        column: its column.
        heading: ``"up"``, ``"right"``, ``"down"`` or ``"left"``.
        targets: the cells that fulfil the part of the mission that comes next.
        also: cells that may be named as targets, too: those of the mission's other parts.
        hazards: the cells that end the episode badly, as the prompts' rules define them.
        optimal: the names of the best actions; empty where no verdict is possible.
        fatal: the names of the actions that end the episode without a reward.
    """

    row: int
    column: int
    heading: str
    targets: tuple[Place, ...]
    also: tuple[Place, ...] = ()
    hazards: tuple[Place, ...]
    optimal: tuple[str, ...]
    fatal: tuple[str, ...]


class Label(Record):
    """A view, what the teacher said about it, and the ground truth where it is known.

    Attributes:
        id: its number within the evaluation or the report.
        source: the policy that got there; None for a view out of a store's log.
        seed: of the environment, for the episode; None likewise.
        step: how many actions were taken before; None likewise.
        env_id: the environment; ``""`` where the evaluation names it.
        picture: what the teacher was shown; None where the log has none.
        mission: the mission in words.
        carrying: the carried object in words.
        actions: the actions' names, in the order of ``probs``.
        probs: the distribution; None where there is no advice.
        analysis: the first stage's answer; None where there is none.
        model: the model that answered.
        cached: whether no call was made for it.
        failure: why there is no advice.
        exchanges: the conversation.
        truth: the ground truth; None where it is not known.
    """

    id: int
    source: Source | None = None
    seed: int | None = None
    step: int | None = None
    env_id: str = ""
    picture: Picture | None
    mission: str
    carrying: str
    actions: tuple[str, ...]
    probs: tuple[float, ...] | None
    analysis: dict[str, Any] | None
    model: str | None
    cached: bool = False
    failure: Failure | None = None
    exchanges: tuple[Exchange, ...]
    truth: GroundTruth | None = None

    @property
    def argmax(self) -> str | None:
        """The action with the highest probability, the first of equals; None without advice."""
        return None if not self.probs else self.actions[self.probs.index(max(self.probs))]

    @property
    def verdict(self) -> Verdict:
        """What the most probable action is worth; ``"unjudged"`` where that is not known."""
        if self.argmax is None:
            return "none"
        if self.truth is not None and self.argmax in self.truth.fatal:
            return "fatal"
        if self.truth is None or not self.truth.optimal:
            return "unjudged"
        return "right" if self.argmax in self.truth.optimal else "wrong"


class Episode(Record):
    """One episode played by the teacher; ``failures`` counts the steps at which it gave no usable answer."""

    way: Way
    seed: int
    total: float = Field(alias="return")
    length: int
    success: bool
    failures: int


# --- metrics: the report card ---


class Rate(Record):
    """A measured value with its 95% interval, from ``n`` cases."""

    value: float
    low: float
    high: float
    n: int


class PlayMetrics(Record):
    """What became of the episodes that were played one way; None where none was."""

    success: Rate | None
    total: Rate | None = Field(alias="return")
    length: float | None


class AnalysisMetrics(Record):
    """How well the first stage reads the picture; ``headings`` counts, by true heading, what was said."""

    agent_row: Rate
    agent_column: Rate
    cell: Rate
    heading: Rate
    pose: Rate
    targets: Rate
    hazards: Rate
    headings: dict[str, dict[str, int]]


class CalibrationBin(Record):
    """Labels of similar confidence: their mean confidence, and how often the most probable action was optimal."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


class ActionMetrics(Record):
    """How good the second stage's distributions are."""

    agreement: Rate | None
    mass_optimal: Rate | None
    mass_fatal: Rate | None
    entropy: float | None
    ece: float | None
    reliability: tuple[CalibrationBin, ...]


class ReplyMetrics(Record):
    """How many labels there are, and how many questions brought none."""

    labels: int
    failures: int
    by_kind: dict[str, int]
    bad_replies: int


class PriceMetrics(Record):
    """What a label costs, and how long it takes."""

    usd_per_label: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    usd_20000_frames: float | None


class Metrics(Record):
    """A teacher's report card."""

    episodes: dict[Way, PlayMetrics]
    stage1: AnalysisMetrics | None
    stage2: ActionMetrics | None
    replies: ReplyMetrics
    price: PriceMetrics


class EvaluationArguments(Record):
    """What an evaluation depends on.

    Attributes:
        env_id: the environment.
        model: the teacher's model string.
        prompts: the prompt set, as it was named.
        fingerprint: the digest of the prompt set's files.
        seed: of states and episodes.
        states: how many states are labelled at most.
        episodes: how many episodes are played, of each way.
    """

    env_id: str
    model: str
    prompts: str
    fingerprint: str
    seed: int
    states: int
    episodes: int


class Evaluation(EvaluationArguments):
    """``evaluation.json``: what was asked of whom, and the report card."""

    format: int
    complete: bool
    card: Metrics


def total(costs: Sequence[float | None]) -> float | None:
    """The sum of some calls' costs; None if one of them is unknown."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
