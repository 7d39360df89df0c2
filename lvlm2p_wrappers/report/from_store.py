"""What a report on a store shows: the calls in its log, grouped by the view that they are about."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import re
from itertools import islice
from typing import Any, NamedTuple

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.records import Call, Exchange, Failure, Label, LoggedCall
from lvlm2p_wrappers.replies import distribution, find_json, read_action
from lvlm2p_wrappers.report.html import Report
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.store import Store, calls

_CALLS_PER_VIEW = 8  # stages, retries, repairs
_MORE_CALLS = 1000  # calls in flight at once are interleaved in the log

_TOLD = re.compile(r"^(Mission|Carrying): (.*)$", re.MULTILINE)


class _View(NamedTuple):
    """What calls about one view have in common."""

    env_id: str
    model: str
    mission: str
    carrying: str
    pictures: tuple[str, ...]  # the digests of the PNG files, the present one last


def from_store(store: Store, *, env: str = "*", last: int = 200) -> Report:
    """A report on the views that were asked about last, the newest first.

    Args:
        store: whose log is read.
        env: only environments whose id matches this glob.
        last: how many views at most.
    """
    matching = (logged for logged in calls(store) if fnmatch.fnmatchcase(logged.call.env_id, env))
    newest_first = list(islice(matching, _CALLS_PER_VIEW * last + _MORE_CALLS))
    groups: dict[_View, list[LoggedCall]] = {}
    quoted: dict[str, _View] = {}
    for logged in reversed(newest_first):
        view = _view(logged, quoted)
        if logged.call.stage == "analysis" and (answer := store.get(logged.call.key)) is not None:
            quoted[answer.text] = view
        groups.setdefault(view, []).append(logged)
    shown = sorted(groups.items(), key=lambda group: -group[1][-1].id)[:last]
    return Report(
        title="What the teacher was asked",
        labels=[_label(number, view, logged) for number, (view, logged) in enumerate(shown, start=1)],
        png_of={_digest(png): png for _, logged in shown for png in _pngs(logged[0].call)}.get,
    )


def _view(logged: LoggedCall, quoted: dict[str, _View]) -> _View:
    """The view that a call is about.

    A prompt set may leave the picture out of the second stage: then it is the view whose analysis the call quotes.
    """
    call, pngs = logged.call, _pngs(logged.call)
    view = _View(call.env_id, call.requested_model, *_told(call), tuple(map(_digest, pngs)))
    if pngs:
        return view
    texts = [message.text for message in call.messages]
    for answer, candidate in reversed(quoted.items()):
        if candidate._replace(pictures=()) == view and any(answer in text for text in texts):
            return candidate
    return view._replace(pictures=(f"none{logged.id}",))  # a view of its own


def _pngs(call: Call) -> list[bytes]:
    """The pictures of the view: those of the last turn that has any, since those before belong to examples."""
    for role, turn in itertools.groupby(reversed(call.messages), lambda message: message.role):
        pictures = [message.picture.png for message in turn if role == "user" and message.picture is not None]
        if pictures:
            return pictures[::-1]
    return []


def _digest(png: bytes) -> str:
    return hashlib.sha256(png).hexdigest()


def _told(call: Call) -> tuple[str, str]:
    """Mission and carried object, where the prompt has them in the form of the bundled prompt sets."""
    for message in reversed(call.messages):
        told = dict(reversed(_TOLD.findall(message.text))) if message.role == "user" else {}
        if told:
            return told.get("Mission", ""), told.get("Carrying", "")
    return "", ""


def _label(number: int, view: _View, logged: list[LoggedCall]) -> Label:
    last = logged[-1].call
    pictures = [SavedPicture.named(_digest(png)) for png in _pngs(logged[0].call)]
    good = [entry.call for entry in reversed(logged) if entry.call.outcome == "ok"]
    actions, probs = next((_advice(call) for call in good if call.stage == "action"), ((), None))
    return Label(
        id=number,
        env_id=view.env_id,
        picture=pictures[-1] if pictures else None,
        earlier=tuple(pictures[:-1]),
        mission=view.mission,
        carrying=view.carrying,
        actions=actions,
        probs=probs,
        analysis=next((_analysis(call) for call in good if call.stage == "analysis"), None),
        model=view.model,
        failure=_failure(last) if last.outcome != "ok" and probs is None else None,
        exchanges=tuple(_exchange(entry) for entry in logged),
    )


def _analysis(call: Call) -> dict[str, Any] | None:
    try:
        return find_json(call.reply or "")
    except BadReplyError:
        return None


def _advice(call: Call) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The actions that a call's schema names, and the probabilities that its reply gives them."""
    try:
        actions = tuple(json.loads(call.schema_text)["properties"]["probabilities"]["required"])
        return actions, tuple(map(float, distribution(read_action(call.reply or "", actions), actions)))
    except (BadReplyError, KeyError, TypeError, ValueError):
        return (), None


def _failure(call: Call) -> Failure:
    kind, _, rest = call.problem.partition(": ")
    if call.outcome == "bad_reply" and rest:
        return Failure(kind=kind, message=rest)
    return Failure(kind="error" if call.status is None else f"HTTP {call.status}", message=call.problem)


def _exchange(logged: LoggedCall) -> Exchange:
    call = logged.call
    common = {name: value for name, value in vars(call).items() if name in Exchange.model_fields}
    return Exchange(**common, model=call.answered_model, at=logged.at, call=logged.id)
