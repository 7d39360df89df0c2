"""The two replies that make a label: checked, and read as a distribution over the actions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from lvlm2p_wrappers.errors import BadReplyError

MAX_REPLY_CHARS = 100_000
"""A longer reply is not read: no answer to either stage comes near it."""

SUM_RANGE = (0.5, 1.5)
"""The probabilities' sum must lie within this range before they are renormalised."""

_LARGEST = 1e6  # below it, numbers of any length add up without overflow


def read_analysis(text: str, form: type[BaseModel]) -> str:
    """Check a first-stage reply and return it as compact JSON text.

    Args:
        text: the raw reply; a code fence or a sentence around the JSON is tolerated.
        form: one that :func:`~lvlm2p_wrappers.schemas.analysis_form` gives.

    Raises:
        BadReplyError: if it is not one JSON object of that form.
    """
    found = find_json(text)
    try:
        return form.model_validate_json(json.dumps(found)).model_dump_json()
    except ValidationError as error:
        raise BadReplyError(_in_short(error), kind="keys", replies=(text,)) from None


def read_action(text: str, actions: Sequence[str]) -> str:
    """Check a second-stage reply and return it as compact JSON text, its numbers as the model gave them.

    Args:
        text: the raw reply; a code fence or a sentence around the JSON is tolerated.
        actions: the names of the actions, all of which must have a number.

    Raises:
        BadReplyError: if it is not one JSON object that gives every action, and nothing else, a finite non-negative
            number, the numbers' sum lying within :data:`SUM_RANGE`.
    """
    found = find_json(text)
    given = found.get("probabilities")
    if not isinstance(given, dict):
        raise BadReplyError('there is no "probabilities" object', kind="keys", replies=(text,))
    problem, kind = problem_of(given, actions)
    if problem:
        raise BadReplyError(problem, kind=kind, replies=(text,))
    reasoning = found.get("reasoning")
    return json.dumps({"reasoning": reasoning if isinstance(reasoning, str) else "", "probabilities": given})


def distribution(answer: str, actions: Sequence[str]) -> NDArray[np.float32]:
    """The renormalised distribution of a checked answer: (n_actions,) float32; 0 for what was not asked about."""
    given = json.loads(answer)["probabilities"]
    probs = np.array([given.get(name, 0.0) for name in actions], dtype=np.float64)
    return np.asarray(probs / probs.sum(), dtype=np.float32)


def find_json(text: str) -> dict[str, Any]:
    """The one JSON object in a reply.

    >>> find_json('Here it is: ```json {"a": 1} ```')
    {'a': 1}

    Raises:
        BadReplyError: if there is none, it is malformed, or there are several: which one is meant is not ours to guess.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise BadReplyError(
            f"the reply has more than {MAX_REPLY_CHARS:,} characters", kind="too_long", replies=(text[:1000],)
        )
    decoder = json.JSONDecoder(parse_constant=no_constant, object_pairs_hook=_no_repeats)
    found: list[dict[str, Any]] = []
    position = text.find("{")
    problem = "the reply holds no JSON object"
    while position >= 0 and len(found) < 2:
        try:
            value, end = decoder.raw_decode(text, position)
            json.dumps(value, allow_nan=False)  # what cannot be written again, as 1e999 or a deep nest, is no answer
        except (ValueError, RecursionError) as error:
            if not found or re.match(r'\{\s*"', text[position:]):
                found, problem = [], f"the JSON is malformed: {error}"
            break
        found.append(value)
        position = text.find("{", end)
    if len(found) == 1:
        return found[0]
    raise BadReplyError("the reply holds several JSON objects" if found else problem, kind="json", replies=(text,))


def no_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python's JSON reader knows and JSON does not."""
    raise ValueError(f"{name} is not a number that JSON knows")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def problem_of(given: Mapping[str, Any], actions: Sequence[str]) -> tuple[str, str]:
    """What is wrong with the probabilities of actions, and its kind; two empty strings if nothing is."""
    if missing := [name for name in actions if name not in given]:
        return f"no probability for {', '.join(missing)}", "keys"
    if unknown := [name for name in given if name not in actions]:
        return f"unknown action {', '.join(unknown)[:200]}; the actions are {', '.join(actions)}", "keys"
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"the probability of {name} is {json.dumps(value)[:100]}, not a number", "number"
        if not 0 <= value <= _LARGEST:  # false for NaN too
            return f"the probability of {name} is {str(value)[:100]}, which is not a probability", "number"
    total = math.fsum(given.values())
    if not SUM_RANGE[0] <= total <= SUM_RANGE[1]:
        return f"the probabilities sum to {total:g}, not to 1", "sum"
    return "", ""


def _in_short(error: ValidationError) -> str:
    parts = [f"{'.'.join(map(str, e['loc'])) or 'the reply'}: {e['msg']}" for e in error.errors()[:3]]
    return re.sub(r"\s+", " ", "; ".join(parts))
