"""The calls that a store has logged, gathered by what was shown."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.records import Call, LoggedCall
from lvlm2p_wrappers.report.records import Exchange, Failure, Label, Message
from lvlm2p_wrappers.schemas import distribution, find_json, read_action
from lvlm2p_wrappers.store import Store, calls

_FURTHER = 1000
"""How many older calls are looked through for the rest of a conversation: calls in flight at once are interleaved."""

_TOLD = re.compile(r"^(Mission|Carrying): (.*)$", re.MULTILINE)

_View = tuple[str, str, str, str, str]


def read_calls(store: Store, *, env: str, last: int) -> tuple[list[Label], dict[str, bytes]]:
    """The views that were asked about last, newest first.

    Args:
        store: whose log to read.
        env: only views of environments whose id matches this glob.
        last: how many views.

    Returns:
        The views, one for each picture, mission, carried thing and model; and the pictures as PNG files' bytes, by the
        digest that the views name.
    """
    gathered = _gather(store, env, last)
    pictures: dict[str, bytes] = {}
    labels = []
    for number, logged in enumerate(gathered.values(), start=1):
        held = logged[::-1]
        picture = next((png for entry in held if (png := _picture(entry.call)) is not None), None)
        digest = None if picture is None else _digest(picture)
        if digest is not None and picture is not None:
            pictures[digest] = picture
        labels.append(_label(number, held, digest))
    return labels, pictures


def _gather(store: Store, env: str, last: int) -> dict[_View, list[LoggedCall]]:
    """Calls by view, the newest first."""
    found: dict[_View, list[LoggedCall]] = {}
    blind: list[LoggedCall] = []  # a prompt set may leave the picture out of the second stage
    passed = 0
    for logged in calls(store):
        if not fnmatch.fnmatchcase(logged.call.env_id, env):
            continue
        if _picture(logged.call) is None:
            blind.append(logged)
            continue
        view = _view(logged.call)
        if view in found or len(found) < last:
            found.setdefault(view, []).append(logged)
            _claim(blind, found[view], logged, store)
        else:
            passed += 1
            if passed > _FURTHER:
                break
    for logged in blind:
        if len(found) < last:
            found[(*_view(logged.call)[:-1], str(logged.id))] = [logged]
    return {view: sorted(found[view], key=lambda logged: -logged.id) for view in found}


def _claim(blind: list[LoggedCall], mine: list[LoggedCall], analysis: LoggedCall, store: Store) -> None:
    """Take the calls without a picture that quote this analysis."""
    answer = store.get(analysis.call.key) if blind and analysis.call.stage == "analysis" else None
    if answer is None:
        return
    for logged in list(blind):
        same_task = _told(logged.call) == _told(analysis.call) and logged.call.env_id == analysis.call.env_id
        if same_task and any(answer.text in turn.text for turn in logged.call.messages):
            blind.remove(logged)
            mine.append(logged)


def _view(call: Call) -> _View:
    picture = _picture(call)
    return (call.env_id, call.requested_model, *_told(call), "" if picture is None else _digest(picture))


def _picture(call: Call) -> bytes | None:
    """The view's picture: the last one, since those before it belong to examples."""
    return next((turn.picture.png for turn in reversed(call.messages) if turn.picture is not None), None)


def _told(call: Call) -> tuple[str, str]:
    """Mission and carried thing, as far as the prompts say them in the way of the bundled ones."""
    for turn in reversed(call.messages):
        told = dict(reversed(_TOLD.findall(turn.text))) if turn.role == "user" else {}
        if told:
            return told.get("Mission", ""), told.get("Carrying", "")
    return "", ""


def _label(number: int, held: list[LoggedCall], picture: str | None) -> Label:
    last = held[-1].call
    mission, carrying = _told(last)
    good = [entry.call for entry in held if entry.call.outcome == "ok"]
    action = next((call for call in reversed(good) if call.stage == "action"), None)
    actions = _actions(action) if action is not None else ()
    probs = None if action is None else _probs(action, actions)
    bad = last if last.outcome != "ok" and probs is None else None
    return Label(
        id=number,
        env_id=last.env_id,
        picture=picture,
        mission=mission,
        carrying=carrying,
        actions=actions if probs is not None else (),
        probs=probs,
        analysis=next(_analyses(good), None),
        model=last.requested_model,
        failure=None if bad is None else _failure(bad),
        exchanges=tuple(_exchange(entry) for entry in held),
    )


def _analyses(good: list[Call]) -> Iterator[dict[str, Any]]:
    for call in reversed(good):
        if call.stage == "analysis" and call.reply is not None:
            try:
                yield find_json(call.reply)
            except BadReplyError:
                continue


def _actions(call: Call) -> tuple[str, ...]:
    try:
        return tuple(json.loads(call.schema_text)["properties"]["probabilities"]["required"])
    except (KeyError, TypeError, ValueError):
        return ()


def _probs(call: Call, actions: tuple[str, ...]) -> tuple[float, ...] | None:
    try:
        return tuple(map(float, distribution(read_action(call.reply or "", actions), actions)))
    except BadReplyError:
        return None


def _failure(call: Call) -> Failure:
    kind, _, rest = call.problem.partition(": ")
    if call.outcome == "bad_reply" and rest:
        return Failure(kind=kind, message=rest)
    return Failure(kind="error" if call.status is None else f"HTTP {call.status}", message=call.problem)


def _exchange(entry: LoggedCall) -> Exchange:
    call = entry.call
    return Exchange(
        call=entry.id,
        stage=call.stage,
        messages=tuple(
            Message(role=turn.role, text=turn.text, picture=turn.picture is not None) for turn in call.messages
        ),
        reply=call.reply,
        outcome=call.outcome,
        problem=call.problem,
        model=call.answered_model,
        latency_s=call.latency_s,
        prompt_tokens=call.prompt_tokens,
        completion_tokens=call.completion_tokens,
        cost_usd=call.cost_usd,
    )


def _digest(png: bytes) -> str:
    return hashlib.sha256(png).hexdigest()
