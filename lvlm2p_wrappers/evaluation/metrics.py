"""The report card: what an evaluation's rows come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.evaluation.folder import Episode, Label, Stage, Way
from lvlm2p_wrappers.evaluation.ground_truth import Place
from lvlm2p_wrappers.evaluation.intervals import mean, share

HEADINGS = ("up", "right", "down", "left")
RUN_FRAMES = 20_000
"""The run whose price the card names."""

_BINS = 10
_GRID = ("agent_row", "agent_column", "heading", "targets", "hazards")  # what an analysis must have to be scored


def card(labels: Sequence[Label], episodes: Sequence[Episode], *, run_views: float | None = None) -> dict[str, Any]:
    """The report card as plain JSON values. A rate has a 95% interval, and is None where it does not apply.

    Args:
        labels: the labels of an evaluation.
        episodes: its episodes.
        run_views: how many different views a run of ``RUN_FRAMES`` frames shows; None if that is not known.
    """
    # Rows come in the order in which they were answered; the bootstrap's draws should not depend on it.
    labels = sorted(labels, key=lambda label: label.id)
    episodes = sorted(episodes, key=lambda row: row.seed)
    return {
        "episodes": {way: _played([row for row in episodes if row.way == way]) for way in get_args(Way)},
        "stage1": _stage1(labels),
        "stage2": _stage2([label for label in labels if label.probs is not None]),
        "replies": {
            "labels": sum(label.probs is not None for label in labels),
            "failures": sum(label.failure is not None for label in labels),
            "by_kind": dict(Counter(label.failure.kind for label in labels if label.failure is not None)),
            "bad_replies": sum(_bad_replies(exchange) for label in labels for exchange in label.exchanges),
        },
        "price": _price(labels, run_views),
    }


def _played(episodes: Sequence[Episode]) -> dict[str, Any]:
    return {
        "success": share([row.success for row in episodes]),
        "return": mean([row.total for row in episodes]),
        "length": _average([row.length for row in episodes]),
    }


# --- stage 1 ---


def is_right(label: Label, what: str) -> bool | None:
    """Whether an analysis is right about something; None where there is no truth, or no analysis of a grid.

    Args:
        label: the label.
        what: ``"agent_row"``, ``"agent_column"``, ``"heading"``, ``"cell"`` (row and column), ``"pose"`` (cell and
            heading), ``"targets"`` or ``"hazards"``. Of these two the cells count, not the words for what is there;
            none may be missing, and none too many.
    """
    found, truth = label.analysis, label.truth
    if found is None or truth is None or not set(_GRID) <= set(found):
        return None
    parts = {
        "agent_row": bool(found["agent_row"] == truth.row),
        "agent_column": bool(found["agent_column"] == truth.column),
        "heading": bool(found["heading"] == truth.heading),
    }
    if what == "targets":
        named, needed = _cells(found["targets"]), _cells_of(truth.targets)
        return needed <= named <= needed | _cells_of(truth.also)
    if what == "hazards":
        return _cells(found["hazards"]) == _cells_of(truth.hazards)
    if what in ("cell", "pose"):
        return all(parts[part] for part in ("agent_row", "agent_column", *(["heading"] if what == "pose" else ())))
    return parts[what]


def _stage1(labels: Sequence[Label]) -> dict[str, Any] | None:
    scored = [label for label in labels if is_right(label, "pose") is not None]
    if not scored:
        return None
    names = ("agent_row", "agent_column", "cell", "heading", "pose", "targets", "hazards")
    table = {true: dict.fromkeys(HEADINGS, 0) for true in HEADINGS}
    for label in scored:
        assert label.truth is not None and label.analysis is not None
        if label.analysis["heading"] in HEADINGS:
            table[label.truth.heading][label.analysis["heading"]] += 1
    rates: dict[str, Any] = {name: share([bool(is_right(label, name)) for label in scored]) for name in names}
    return {**rates, "headings": table}


def _cells(places: Any) -> set[tuple[Any, Any]]:
    """The cells of a list of places; a form of a user's own may hold anything."""
    if not isinstance(places, list):
        return set()
    return {(place.get("row"), place.get("column")) if isinstance(place, dict) else (None, None) for place in places}


def _cells_of(places: Sequence[Place]) -> set[tuple[Any, Any]]:
    return {(place.row, place.column) for place in places}


# --- stage 2 ---


def agrees(label: Label) -> bool | None:
    """Whether the most probable action is an optimal one; None where that cannot be said."""
    if label.probs is None or label.truth is None or not label.truth.optimal:
        return None
    return label.actions[int(np.argmax(label.probs))] in label.truth.optimal


def mass_optimal(label: Label) -> float | None:
    """The probability on optimal actions; None where that cannot be said."""
    if label.probs is None or label.truth is None or not label.truth.optimal:
        return None
    return _mass(label, label.truth.optimal)


def mass_fatal(label: Label) -> float | None:
    """The probability on fatal actions, in states that have any; None elsewhere."""
    if label.probs is None or label.truth is None or not label.truth.fatal:
        return None
    return _mass(label, label.truth.fatal)


def known(labels: Sequence[Label], measure: Callable[[Label], float | None]) -> list[float]:
    """What a measure says, where it says anything."""
    return [value for value in map(measure, labels) if value is not None]


def _mass(label: Label, names: Sequence[str]) -> float:
    assert label.probs is not None
    return sum(p for p, name in zip(label.probs, label.actions, strict=True) if name in names)


def _stage2(labels: Sequence[Label]) -> dict[str, Any] | None:
    if not labels:
        return None
    judged = [label for label in labels if agrees(label) is not None]
    confidence = np.array([max(label.probs or ()) for label in judged])
    right = np.array([bool(agrees(label)) for label in judged], dtype=float)
    bins = _reliability(confidence, right)
    return {
        "agreement": share([bool(hit) for hit in right]),
        "mass_optimal": mean(known(labels, mass_optimal)),
        "mass_fatal": mean(known(labels, mass_fatal)),
        "entropy": _average([_entropy(label.probs or ()) for label in labels]),
        "ece": sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / len(judged) if bins else None,
        "reliability": bins,
    }


def _entropy(probs: Sequence[float]) -> float:
    return -sum(p * math.log(p) for p in probs if p > 0)


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Bins of equal width for the expected calibration error (Guo et al. 2017, eq. 3); empty ones are left out."""
    numbers = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        {
            "low": number / _BINS,
            "high": (number + 1) / _BINS,
            "confidence": float(confidence[numbers == number].mean()),
            "accuracy": float(right[numbers == number].mean()),
            "n": int((numbers == number).sum()),
        }
        for number in np.unique(numbers)
    ]


# --- replies and price ---


def _bad_replies(exchange: Stage) -> int:
    """Replies of a stage that could not be used: one that a repair turn, which has no picture, quotes, and the last."""
    said = exchange.messages
    repaired = len(said) > 1 and said[-2].role == "assistant" and not said[-1].picture
    return repaired + (exchange.outcome == "bad_reply")


def cost(label: Label) -> float | None:
    """What a label's calls cost when they were made; None if one of them has no known price."""
    costs = [exchange.cost_usd for exchange in label.exchanges if exchange.outcome is not None]
    known_costs = [one for one in costs if one is not None]
    return sum(known_costs) if costs and len(known_costs) == len(costs) else None


def _price(labels: Sequence[Label], run_views: float | None) -> dict[str, Any]:
    costs = known(labels, cost)
    usable = sum(label.probs is not None for label in labels)
    each = sum(costs) / usable if usable and len(costs) == len(labels) else None
    latencies = [
        sum(exchange.latency_s or 0.0 for exchange in label.exchanges)
        for label in labels
        if any(exchange.latency_s is not None for exchange in label.exchanges)
    ]
    p50, p95 = np.quantile(latencies, (0.5, 0.95)) if latencies else (None, None)
    return {
        "usd_per_label": each,
        "latency_p50_s": None if p50 is None else float(p50),
        "latency_p95_s": None if p95 is None else float(p95),
        "prompt_tokens": _tokens(labels, lambda exchange: exchange.prompt_tokens),
        "completion_tokens": _tokens(labels, lambda exchange: exchange.completion_tokens),
        f"usd_{RUN_FRAMES}_frames": None if each is None or run_views is None else each * run_views,
    }


def _tokens(labels: Sequence[Label], of: Callable[[Stage], int | None]) -> float | None:
    """Tokens a label, on average over the labels whose calls are all counted."""
    counts = [[of(exchange) for exchange in label.exchanges] for label in labels]
    return _average([sum(one or 0 for one in row) for row in counts if row and None not in row])


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
