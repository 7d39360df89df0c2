"""The metrics of an evaluated teacher."""

from __future__ import annotations

from pydantic import Field

from lvlm2p_wrappers.records.label import Heading, Policy
from lvlm2p_wrappers.records.record import Count, Record


class Rate(Record):
    """An estimate with its 95% interval, from ``n`` cases."""

    value: float
    low: float
    high: float
    n: Count


class RolloutMetrics(Record):
    """What the teacher's rollouts with one policy come to; ``length`` is the mean in steps.

    ``success`` is None where the environment does not say what a success is.
    """

    success: Rate | None
    episodic_return: Rate = Field(alias="return")
    length: float


class AnalysisMetrics(Record):
    """The accuracy of the first stage; ``headings`` counts the predicted headings for each true one.

    Hazards, what is ahead and the next step are None where a form has no such fields, or their truth is not known.
    """

    agent_row: Rate
    agent_column: Rate
    cell: Rate
    heading: Rate
    pose: Rate
    targets: Rate
    hazards: Rate | None
    ahead: Rate | None = None
    next_step: Rate | None = None
    headings: dict[Heading, dict[Heading, Count]]


class CalibrationBin(Record):
    """Labels of similar confidence: their mean confidence, and how often the most probable action was optimal."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: Count


class ActionMetrics(Record):
    """The quality of the second stage's distributions.

    ``regret`` is the return that an action drawn from them loses on average, where the values of actions are known;
    ``ece`` is the expected calibration error.
    """

    agreement: Rate | None
    mass_optimal: Rate | None
    mass_fatal: Rate | None
    regret: Rate | None = None
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
        states_from: the policies whose states are labelled.
    """

    env_id: str
    model: str
    prompts: str
    fingerprint: str
    seed: Count
    states: Count
    episodes: Count
    states_from: str = "mixed"

    @property
    def teacher(self) -> str:
        """The model string, in words where it names no model."""
        return f"{self.model} (a Python function, no model)" if self.model.startswith("python:") else self.model


class Evaluation(EvaluationArguments):
    """``evaluation.json``: the arguments, whether every row is there, on which day it was written, and the metrics."""

    complete: bool
    written: str | None = None  # as 2026-11-25; 0.1.0 did not tell
    metrics: Metrics
