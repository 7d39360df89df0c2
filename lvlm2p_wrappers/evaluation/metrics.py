"""The metrics of an evaluation: what its labels and episodes come to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.evaluation.intervals import mean, proportion
from lvlm2p_wrappers.records import (
    ActionMetrics,
    AnalysisMetrics,
    CalibrationBin,
    Episode,
    Exchange,
    Heading,
    Label,
    Metrics,
    Place,
    Policy,
    PriceMetrics,
    ReplyMetrics,
    RolloutMetrics,
    total,
)

RUN_FRAMES = 20_000
"""The length of the training run whose price is given."""

_BINS = 10
_GRID = ("agent_row", "agent_column", "heading", "targets")  # the fields of every analysis of a grid


_COLORED = ("door", "key", "ball", "box")
_KINDS = (*_COLORED, "goal", "lava", "wall", "floor")
_LOOKS = {"red", "green", "blue", "purple", "yellow", "grey", "open", "closed", "locked"}


def compute_metrics(labels: Sequence[Label], episodes: Sequence[Episode], *, run_views: float | None = None) -> Metrics:
    """The metrics; what does not apply is None.

    Args:
        labels: the labels of an evaluation.
        episodes: its episodes.
        run_views: how many distinct views a run of ``RUN_FRAMES`` frames shows; None if that is not known.
    """
    # Rows come in the order of their answers, on which the bootstrap's resamples should not depend.
    labels = sorted(labels, key=lambda label: label.id)
    episodes = sorted(episodes, key=lambda episode: episode.seed)
    by_policy = {name: [row for row in episodes if row.policy == name] for name in get_args(Policy)}
    return Metrics(
        rollouts={name: _rollouts(rows) for name, rows in by_policy.items() if rows},
        analysis=_analysis(labels),
        action=_action([label for label in labels if label.probs is not None]),
        replies=ReplyMetrics(
            labels=sum(label.probs is not None for label in labels),
            failures=sum(label.failure is not None for label in labels),
            by_kind=dict(Counter(label.failure.kind for label in labels if label.failure is not None)),
            bad_replies=sum(_bad_replies(exchange) for label in labels for exchange in label.exchanges),
        ),
        price=_price(labels, run_views),
    )


def _rollouts(episodes: Sequence[Episode]) -> RolloutMetrics:
    successes = [row.success for row in episodes if row.success is not None]
    return RolloutMetrics(
        success=proportion(successes) if successes else None,
        episodic_return=mean([row.episodic_return for row in episodes]),
        length=float(np.mean([row.length for row in episodes])),
    )


# --- stage 1 ---


def analysis_scores(label: Label) -> dict[str, bool]:
    """Whether each part of an analysis agrees with the ground truth.

    ``cell`` is row and column, ``pose`` cell and heading. Of targets and hazards the set of cells has to be the true
    one; the words for what is there do not count. ``ahead`` has to name kind, colour and a door's state, ``next_step``
    one of the cells that a shortest way goes to. Empty without ground truth, or without an analysis of a grid.
    """
    found, truth = label.analysis, label.truth
    if found is None or truth is None or truth.row is None or not set(_GRID) <= set(found):
        return {}
    row, column = bool(found["agent_row"] == truth.row), bool(found["agent_column"] == truth.column)
    heading = bool(found["heading"] == truth.heading)
    targets, needed = _cells(found["targets"]), _cells_of(truth.targets)
    scores = {
        "agent_row": row,
        "agent_column": column,
        "cell": row and column,
        "heading": heading,
        "pose": row and column and heading,
        "targets": needed <= targets <= needed | _cells_of(truth.also),
    }
    if "hazards" in found:
        scores["hazards"] = _cells(found["hazards"]) == _cells_of(truth.hazards)
    if "ahead" in found and truth.ahead is not None:
        scores["ahead"] = _named(str(found["ahead"])) == _named(truth.ahead)
    if "next_step" in found and truth.next_steps:
        scores["next_step"] = _cells([found["next_step"]]) <= set(truth.next_steps)
    return scores


def _named(thing: str) -> frozenset[str]:
    """The words of a thing that count: kind, colour and a door's state."""
    words = set(re.findall("[a-z]+", thing.lower().replace("gray", "grey")))
    kind = next((kind for kind in _KINDS if kind in words), "floor" if "empty" in words else "")
    return frozenset({kind} | words & (_LOOKS if kind in _COLORED else set()))


def _analysis(labels: Sequence[Label]) -> AnalysisMetrics | None:
    scores = [score for label in labels if (score := analysis_scores(label))]
    if not scores:
        return None
    pairs = Counter(
        (label.truth.heading, str(label.analysis["heading"]))
        for label in labels
        if label.truth and label.truth.heading and label.analysis and analysis_scores(label)
    )
    rates = {
        name: proportion([score[name] for score in scores if name in score])
        for name in ("agent_row", "agent_column", "cell", "heading", "pose", "targets", "hazards", "ahead", "next_step")
        if any(name in score for score in scores)
    }
    headings: tuple[Heading, ...] = get_args(Heading)
    return AnalysisMetrics(
        **{"hazards": None, **rates},
        headings={true: {predicted: pairs[true, predicted] for predicted in headings} for true in headings},
    )


def _cells(places: Any) -> set[tuple[Any, Any]]:
    """The cells of a list of places; a form of a user's own may hold anything."""
    if not isinstance(places, list):
        return set()
    cells = ((place.get("row"), place.get("column")) if isinstance(place, dict) else (None, None) for place in places)
    return {cell if all(isinstance(number, int | None) for number in cell) else (None, None) for cell in cells}


def _cells_of(places: Sequence[Place]) -> set[tuple[Any, Any]]:
    return {(place.row, place.column) for place in places}


# --- stage 2 ---


def agrees(label: Label) -> bool | None:
    """Whether the most probable action is an optimal one; None where that is not known."""
    if label.argmax is None or label.truth is None or not label.truth.optimal:
        return None
    return label.argmax in label.truth.optimal


def mass_optimal(label: Label) -> float | None:
    """The probability of the optimal actions; None where they are not known."""
    return None if label.truth is None else _mass(label, label.truth.optimal)


def mass_fatal(label: Label) -> float | None:
    """The probability of the fatal actions; None in states without any."""
    return None if label.truth is None else _mass(label, label.truth.fatal)


def regret(label: Label) -> float | None:
    """The return that an action drawn from the distribution loses on average; None where that is not known."""
    if label.probs is None or label.truth is None or not label.truth.regret:
        return None
    return sum(p * lost for p, lost in zip(label.probs, label.truth.regret, strict=True))


def known(labels: Sequence[Label], metric: Callable[[Label], float | None]) -> list[float]:
    """The values of a metric for the labels that have one."""
    return [value for value in map(metric, labels) if value is not None]


def _mass(label: Label, names: Sequence[str]) -> float | None:
    if label.probs is None or not names:
        return None
    return sum(p for p, name in zip(label.probs, label.actions, strict=True) if name in names)


def _action(labels: Sequence[Label]) -> ActionMetrics | None:
    if not labels:
        return None
    judged = [label for label in labels if agrees(label) is not None]
    confidence = np.array([max(label.probs or ()) for label in judged])
    right = [bool(agrees(label)) for label in judged]
    bins = _reliability(confidence, np.array(right, dtype=float))
    optimal, fatal, lost = (known(labels, metric) for metric in (mass_optimal, mass_fatal, regret))
    return ActionMetrics(
        agreement=proportion(right) if right else None,
        mass_optimal=mean(optimal) if optimal else None,
        mass_fatal=mean(fatal) if fatal else None,
        regret=mean(lost) if lost else None,
        entropy=float(np.mean([_entropy(label.probs or ()) for label in labels])),
        ece=sum(row.n * abs(row.confidence - row.accuracy) for row in bins) / len(judged) if bins else None,
        reliability=bins,
    )


def _entropy(probs: Sequence[float]) -> float:
    return -sum(p * math.log(p) for p in probs if p > 0)


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[CalibrationBin, ...]:
    """Bins of equal width for the expected calibration error (Guo et al. 2017, eq. 3); empty ones are left out."""
    numbers = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return tuple(
        CalibrationBin(
            low=number / _BINS,
            high=(number + 1) / _BINS,
            confidence=float(confidence[numbers == number].mean()),
            accuracy=float(right[numbers == number].mean()),
            n=int((numbers == number).sum()),
        )
        for number in np.unique(numbers)
    )


# --- replies and price ---


def _bad_replies(exchange: Exchange) -> int:
    """The bad replies of a stage: one that a repair turn quotes, which has no picture, and the last one."""
    messages = exchange.messages
    repaired = len(messages) > 1 and messages[-2].role == "assistant" and messages[-1].picture is None
    return repaired + (exchange.outcome == "bad_reply")


def cost(label: Label) -> float | None:
    """What a label's calls cost when they were made; None if one of them has no known price."""
    if label.probs is not None and not label.exchanges:
        return 0.0  # a Python function's
    costs = [exchange.cost_usd for exchange in label.exchanges if exchange.outcome is not None]
    return total(costs) if costs else None


def _price(labels: Sequence[Label], run_views: float | None) -> PriceMetrics:
    costs = known(labels, cost)
    usable = sum(label.probs is not None for label in labels)
    each = sum(costs) / usable if usable and len(costs) == len(labels) else None
    times = [[one.latency_s for one in label.exchanges if one.latency_s is not None] for label in labels]
    latencies = [sum(some) for some in times if some]
    p50, p95 = map(float, np.quantile(latencies, (0.5, 0.95))) if latencies else (None, None)
    return PriceMetrics(
        usd_per_label=each,
        latency_p50_s=p50,
        latency_p95_s=p95,
        prompt_tokens=_tokens(labels, lambda exchange: exchange.prompt_tokens),
        completion_tokens=_tokens(labels, lambda exchange: exchange.completion_tokens),
        usd_20000_frames=None if each is None or run_views is None else each * run_views,
    )


def _tokens(labels: Sequence[Label], of: Callable[[Exchange], int | None]) -> float | None:
    """The mean tokens of a label, over the labels whose calls are all counted."""
    counts = [[of(exchange) for exchange in label.exchanges] for label in labels]
    sums = [sum(one or 0 for one in row) for row in counts if row and None not in row]
    return float(np.mean(sums)) if sums else None
