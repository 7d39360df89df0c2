"""What a report shows, as an evaluation's files hold it; a report on a store brings its calls into the same form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1
"""Version of the evaluation folders that are read here."""

Verdict = Literal["right", "wrong", "fatal", "unjudged", "none"]


class _Record(BaseModel):
    # A newer version may say more than is known here. Infinity and NaN are no numbers to draw.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Message(_Record):
    """One message of a conversation; whether a picture went with it."""

    role: str
    text: str
    picture: bool = False


class Exchange(_Record):
    """One call, or one stage of a conversation: what was sent and what came back; ``call`` is its number in a store."""

    call: int | None = None
    stage: str
    messages: tuple[Message, ...] = ()
    reply: str | None = None
    outcome: str | None = None
    problem: str = ""
    model: str | None = None
    latency_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None


class Place(_Record):
    """A thing and its cell."""

    what: str = ""
    row: int
    column: int


class Truth(_Record):
    """The environment's own state, and what the actions are worth in it; ``also`` may be named as targets, too."""

    row: int
    column: int
    heading: str
    targets: tuple[Place, ...] = ()
    also: tuple[Place, ...] = ()
    hazards: tuple[Place, ...] = ()
    optimal: tuple[str, ...] = ()
    fatal: tuple[str, ...] = ()


class Failure(_Record):
    """Why there is no advice."""

    kind: str
    message: str = ""


class Label(_Record):
    """One state that a teacher was asked about."""

    id: int
    source: str = ""
    seed: int | None = None
    step: int | None = None
    env_id: str = ""
    picture: str | None = Field(default=None, pattern=r"^[0-9a-zA-Z]{1,128}$")
    mission: str = ""
    carrying: str = ""
    actions: tuple[str, ...] = ()
    probs: tuple[float, ...] | None = None
    analysis: dict[str, Any] | None = None
    model: str | None = None
    cached: bool = False
    failure: Failure | None = None
    exchanges: tuple[Exchange, ...] = ()
    truth: Truth | None = None

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

    @property
    def reply_state(self) -> str:
        """``"ok"``, ``"bad reply"`` or ``"error"``, the worst of its exchanges; ``"not asked"`` if there is none."""
        outcomes = {exchange.outcome for exchange in self.exchanges}
        if "bad_reply" in outcomes:
            return "bad reply"
        if "error" in outcomes or self.failure is not None:
            return "error"
        return "ok" if "ok" in outcomes or self.probs else "not asked"


class Rate(_Record):
    """A measured value with its 95% interval, from ``n`` cases."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class Played(_Record):
    """What became of the episodes that were played one way."""

    success: Rate | None = None
    returned: Rate | None = Field(default=None, alias="return")
    length: float | None = None


class Seeing(_Record):
    """How well the first stage reads the picture; ``headings`` counts, by true heading, what was said."""

    agent_row: Rate | None = None
    agent_column: Rate | None = None
    cell: Rate | None = None
    heading: Rate | None = None
    pose: Rate | None = None
    targets: Rate | None = None
    hazards: Rate | None = None
    headings: dict[str, dict[str, int]] | None = None


class Bin(_Record):
    """Labels of similar confidence: their mean confidence, and how often the most probable action was optimal."""

    low: float
    high: float
    confidence: float | None = None
    accuracy: float | None = None
    n: int = 0


class Choosing(_Record):
    """How good the second stage's distributions are."""

    agreement: Rate | None = None
    mass_optimal: Rate | None = None
    mass_fatal: Rate | None = None
    entropy: float | None = None
    ece: float | None = None
    reliability: tuple[Bin, ...] = ()


class Replies(_Record):
    """How many labels there are, and how many questions brought none."""

    labels: int = 0
    failures: int = 0
    by_kind: dict[str, int] = {}
    bad_replies: int = 0


class Price(_Record):
    """What a label costs, and how long it takes."""

    usd_per_label: float | None = None
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    usd_20000_frames: float | None = None


class Card(_Record):
    """A teacher's report card."""

    episodes: dict[str, Played] = {}
    stage1: Seeing | None = None
    stage2: Choosing | None = None
    replies: Replies | None = None
    price: Price | None = None


class Evaluation(_Record):
    """What an evaluation was of; ``card`` is None before it has come to one."""

    format: int
    env_id: str
    model: str
    prompts: str | None = None
    fingerprint: str | None = None
    seed: int | None = None
    states: int | None = None
    episodes: int | None = None
    complete: bool = False
    card: Card | None = None


class Episode(_Record):
    """One episode that the teacher played."""

    way: str
    seed: int
    returned: float = Field(alias="return")
    length: int = 0
    success: bool
    failures: int = 0
