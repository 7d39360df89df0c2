"""A teacher without a model: a Python function of the user's own, from a view to a probability for every action."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lvlm2p_wrappers.errors import TransportError, UsageError
from lvlm2p_wrappers.records import Advice, Answer, Call, Message, View
from lvlm2p_wrappers.replies import distribution, problem_of
from lvlm2p_wrappers.schemas import action_schema
from lvlm2p_wrappers.store import Store
from lvlm2p_wrappers.user_functions import UserFunction

PREFIX = "python:"


class PythonFunction:
    """Answers with a function. What it says is stored only if it declares a version, its attribute ``version``.

    Args:
        model: ``"python:module:function"``.
        offline: whether only the store may answer.

    Raises:
        UsageError: if there is no such function, or offline none of its answers can be known.
    """

    def __init__(self, model: str, *, offline: bool) -> None:
        self._model, self._offline = model, offline
        self._function = UserFunction(model.removeprefix(PREFIX), "the Python teacher")
        self.version = self._function.version
        if offline and self.version is None:
            raise UsageError(f"offline, and no answer of {model} is in any store: it declares no version")

    def advise(self, view: View, store: Store) -> Advice:
        """What it advises; each of its answers to a view is stored once.

        Raises:
            UsageError: if it raises, or returns what is no distribution.
            TransportError: if it is offline and the store has no answer.
        """
        started = time.perf_counter()
        key = "" if self.version is None else self._key(view)
        stored = store.get(key) if key else None
        if stored is None and self._offline:
            raise TransportError(f"offline, and the store has no answer of {self._model} to this", remembered=True)
        text = self._answer(view) if stored is None else stored.text
        if key and stored is None:
            store.record(self._call(key, view, text), Answer(text, self._model))
        return Advice(
            probs=distribution(text, view.actions),
            analysis="",
            model=self._model,
            cached=stored is not None,
            cost_usd=0.0,
            latency_s=time.perf_counter() - started,
            actions=view.actions,
        )

    def _answer(self, view: View) -> str:
        """What the function returns for a view, checked as a model's reply is, as JSON text."""
        found = self._function(view)
        given = found if isinstance(found, Mapping) else _by_name(found, view.actions)
        if given is None:
            wanted = f"a mapping from action names to probabilities, or {len(view.actions)} numbers"
            raise UsageError(f"{self._model} returned {_short(found)}; return {wanted}")
        unknown = [str(name) for name in given if name not in view.actions]
        plain = dict.fromkeys(view.actions, 0.0) | {name: _plain(value) for name, value in given.items()}
        if unknown:
            problem = f"there is no action {', '.join(unknown)}; the actions are {', '.join(view.actions)}"
        else:
            problem, _ = problem_of(plain, view.actions)
        if problem:
            raise UsageError(f"{self._model} returned {_short(found)}: {problem}")
        return json.dumps({"reasoning": "", "probabilities": plain})

    def _key(self, view: View) -> str:
        """A digest of all that the function can see, and of its version."""
        seen = pickle.dumps((self._model, self.version, view.key(), view.history, view.observation))
        return hashlib.sha256(seen).hexdigest()[:40]

    def _call(self, key: str, view: View, text: str) -> Call:
        return Call(
            key=key,
            stage="action",
            env_id=view.env_id,
            requested_model=self._model,
            messages=(Message("user", f"Mission: {view.mission}\nCarrying: {view.carrying}", view.picture),),
            schema_text=json.dumps(action_schema(view.actions)),
            options=json.dumps({"version": self.version}),
            reply=text,
            answered_model=self._model,
            outcome="ok",
            cost_usd=0.0,
        )


def _by_name(found: Any, actions: Sequence[str]) -> dict[str, Any] | None:
    """An array's numbers by the names of the actions; None where it is no array of as many."""
    try:
        numbers = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return dict(zip(actions, numbers.tolist(), strict=True)) if numbers.shape == (len(actions),) else None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(found: Any) -> str:
    return " ".join(repr(found).split())[:200]
