"""The records that teacher, store, evaluation and report share, each of them defined once.

Their fields are what the evaluation's files and the report show: whoever renames one breaks a test, not a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from lvlm2p_wrappers.picture import Picture

Role = Literal["system", "user", "assistant", "reply"]
Stage = Literal["analysis", "action"]
Outcome = Literal["ok", "bad_reply", "error"]
Source = Literal["random", "student", "expert"]
Policy = Literal["argmax", "sampled"]
Heading = Literal["up", "right", "down", "left"]
Verdict = Literal["right", "wrong", "fatal", "unjudged", "none"]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


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
    prompt_tokens: Integer | None
    completion_tokens: Integer | None
    cost_usd: float | None
    at: float | None = None
    call: Integer | None = None


# --- a label, and the ground truth that it is compared with ---


class Failure(Record):
    """Why a question has no answer; ``kind`` is that of :class:`BadReplyError`, or the transport's."""

    kind: str
    message: str


class Place(Record):
    """A thing and its cell; row and column as printed beside the picture."""

    what: str
    row: Integer
    column: Integer


class GroundTruth(Record):
    """The environment's own state at one step, and the value of the actions in it. No teacher ever sees it.

    Attributes:
        row: the agent's row, as printed beside the picture.
        column: its column.
        heading: the direction it faces.
        targets: the cells that fulfil the part of the mission that comes next.
        also: the cells of the mission's other parts: an analysis may name them as targets, too.
        hazards: the cells that end the episode without a reward, as the prompts' rules define them.
        optimal: the names of the optimal actions; empty where they are not known.
        fatal: the names of the actions that end the episode without a reward.
    """

    row: Integer
    column: Integer
    heading: Heading
    targets: tuple[Place, ...]
    also: tuple[Place, ...] = ()
    hazards: tuple[Place, ...]
    optimal: tuple[str, ...]
    fatal: tuple[str, ...]


class Label(Record):
    """A view, the teacher's answer to it, and the ground truth where it is known.

    Attributes:
        id: its number within the evaluation or the report.
        source: the policy that reached the state; None for a view from a store's log.
        seed: the environment's seed for the episode; None likewise.
        step: the number of actions taken before; None likewise.
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

    id: Integer
    source: Source | None = None
    seed: Integer | None = None
    step: Integer | None = None
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

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.probs is not None and len(self.probs) != len(self.actions):
            raise ValueError(f"state {self.id} has {len(self.probs)} probabilities for {len(self.actions)} actions")
        return self

    @property
    def argmax(self) -> str | None:
        """The most probable action, the first of equals; None without advice."""
        return None if not self.probs else self.actions[self.probs.index(max(self.probs))]

    @property
    def verdict(self) -> Verdict:
        """Whether the most probable action is optimal; ``"unjudged"`` where that is not known."""
        if self.argmax is None:
            return "none"
        if self.truth is not None and self.argmax in self.truth.fatal:
            return "fatal"
        if self.truth is None or not self.truth.optimal:
            return "unjudged"
        return "right" if self.argmax in self.truth.optimal else "wrong"


class Episode(Record):
    """One episode of a rollout in which the teacher acts.

    Attributes:
        policy: ``"argmax"`` takes the most probable action, ``"sampled"`` draws one from the distribution.
        seed: the environment's seed.
        episodic_return: the sum of the rewards; in JSON it is called ``return``.
        length: in steps.
        success: whether the last reward was above 0.
        failures: the steps at which a reply could not be used, and the action was drawn uniformly.
    """

    policy: Policy
    seed: Integer
    episodic_return: float = Field(alias="return")
    length: Count
    success: bool
    failures: Count


# --- metrics ---


class Rate(Record):
    """An estimate with its 95% interval, from ``n`` cases."""

    value: float
    low: float
    high: float
    n: Count


class RolloutMetrics(Record):
    """What the teacher's rollouts with one policy come to; ``length`` is the mean in steps."""

    success: Rate
    episodic_return: Rate = Field(alias="return")
    length: float


class AnalysisMetrics(Record):
    """The accuracy of the first stage; ``headings`` counts the predicted headings for each true one."""

    agent_row: Rate
    agent_column: Rate
    cell: Rate
    heading: Rate
    pose: Rate
    targets: Rate
    hazards: Rate
    headings: dict[Heading, dict[Heading, Count]]


class CalibrationBin(Record):
    """Labels of similar confidence: their mean confidence, and how often the most probable action was optimal."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: Count


class ActionMetrics(Record):
    """The quality of the second stage's distributions; ``ece`` is the expected calibration error."""

    agreement: Rate | None
    mass_optimal: Rate | None
    mass_fatal: Rate | None
    entropy: float
    ece: float | None
    reliability: tuple[CalibrationBin, ...]


class ReplyMetrics(Record):
    """How many labels there are, and how many questions brought none."""

    labels: Count
    failures: Count
    by_kind: dict[str, Count]
    bad_replies: Count


class PriceMetrics(Record):
    """What a label costs in US dollars, tokens and seconds; None where a price, or every count, is missing."""

    usd_per_label: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    usd_20000_frames: float | None


class Metrics(Record):
    """What an evaluation measures: the rollouts, both stages, the replies and the price."""

    rollouts: dict[Policy, RolloutMetrics]
    analysis: AnalysisMetrics | None
    action: ActionMetrics | None
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
        episodes: how many episodes are rolled out with each policy.
    """

    env_id: str
    model: str
    prompts: str
    fingerprint: str
    seed: Count
    states: Count
    episodes: Count


class Evaluation(EvaluationArguments):
    """``evaluation.json``: the arguments, whether every row is there, and the metrics."""

    complete: bool
    metrics: Metrics


def total(costs: Sequence[float | None]) -> float | None:
    """The sum of some calls' costs; None if one of them is unknown."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
