"""A label: a view, what the teacher said of it, and the ground truth; and the episodes of rollouts."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lvlm2p_wrappers.records.conversation import Exchange
from lvlm2p_wrappers.records.record import AnyPicture, Count, Integer, Record

Source = Literal["random", "noisy_expert", "expert", "teacher", "saved_student"]
Policy = Literal["argmax", "sampled"]
Heading = Literal["up", "right", "down", "left"]
Verdict = Literal["right", "wrong", "fatal", "unjudged", "none"]


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
        row: the agent's row, as printed beside the picture; None where there is no grid.
        column: its column; likewise.
        heading: the direction it faces; likewise.
        targets: the cells that fulfil the part of the mission that comes next.
        also: the cells of the mission's other parts: an analysis may name them as targets, too.
        hazards: the cells that end the episode without a reward, as the prompts' rules define them.
        optimal: the names of the optimal actions; empty where they are not known.
        regret: how much less each action is worth than the best one, in the order of the actions; empty where that is
            not known.
        fatal: the names of the actions that end the episode without a reward.
        ahead: what is in the cell ahead; None in evaluations that were made before it was asked for.
        next_steps: the cells (row, column) that a shortest way may enter or act on next; empty where none is known.
    """

    row: Integer | None = None
    column: Integer | None = None
    heading: Heading | None = None
    targets: tuple[Place, ...] = ()
    also: tuple[Place, ...] = ()
    hazards: tuple[Place, ...] = ()
    optimal: tuple[str, ...]
    fatal: tuple[str, ...] = ()
    regret: tuple[float, ...] = ()
    ahead: str | None = None
    next_steps: tuple[tuple[Integer, Integer], ...] = ()


class Label(Record):
    """A view, the teacher's answer to it, and the ground truth where it is known.

    Attributes:
        id: its number within the evaluation or the report.
        source: the policy that reached the state; None for a view from a store's log.
        seed: the environment's seed for the episode; None likewise.
        step: the number of actions taken before; None likewise.
        env_id: the environment; ``""`` where the evaluation names it.
        picture: what the teacher was shown; None where the log has none.
        earlier: the pictures that it was shown before this one, oldest first.
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
    picture: AnyPicture | None
    mission: str
    carrying: str
    actions: tuple[str, ...]
    probs: tuple[float, ...] | None
    analysis: dict[str, Any] | None
    model: str | None
    cached: bool = False
    failure: Failure | None = None
    exchanges: tuple[Exchange, ...]
    earlier: tuple[AnyPicture, ...] = ()
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
        success: what the environment's ``info["is_success"]`` says; in MiniGrid and BabyAI whether the last reward was
            above 0; else None.
        failures: the steps at which a reply could not be used, and the action was drawn uniformly.
    """

    policy: Policy
    seed: Integer
    episodic_return: float = Field(alias="return")
    length: Count
    success: bool | None
    failures: Count
