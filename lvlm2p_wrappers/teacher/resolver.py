"""From a question to its checked answer: out of the store, or from the model, once."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from lvlm2p_wrappers.client import Client, Reply, Request, call_of
from lvlm2p_wrappers.client.provider_errors import short
from lvlm2p_wrappers.errors import BadReplyError, ModelError, StoreError, TransportError
from lvlm2p_wrappers.prompts import Question
from lvlm2p_wrappers.records import Answer, Call, total
from lvlm2p_wrappers.store import Store

log = logging.getLogger(__name__)

CLAIM_S = 120.0
"""How long a question is left to a process that has fallen silent; one that died is passed over at once."""

MOST_CHARS = 500
"""How long the description of a bad reply may get: a repair turn quotes it, and each call's row in the log."""


class Answered(NamedTuple):
    """A checked answer, and what it took.

    Attributes:
        text: the answer as JSON text.
        model: the model that answered.
        calls: how many calls were made for it now; 0 out of the store.
        cost_usd: what they cost; None if one of them has no known price.
    """

    text: str
    model: str
    calls: int
    cost_usd: float | None


class Answers:
    """Answers questions, each asked once: while under way, across runs, and across processes sharing a store.

    Belongs to one event loop.

    Args:
        models: asked in order, where the one before failed.
        sampling: sampling options that override the questions' own.
        client: makes the calls.
        store: keeps the answers.
        offline: whether to answer from the store alone.

    Attributes:
        bad_replies: how many replies could not be used.
    """

    def __init__(
        self, models: Sequence[str], sampling: Mapping[str, Any], *, client: Client, store: Store, offline: bool
    ) -> None:
        self.bad_replies = 0
        self._models = models
        self._sampling = sampling
        self._client = client
        self._store = store
        self._offline = offline
        self._flights: dict[str, asyncio.Future[Answered]] = {}
        self._spoilt: dict[str, BadReplyError] = {}
        self._failed_models: set[str] = set()
        self._said_missing = False
        self._renewal: asyncio.TimerHandle | None = None

    def requests(self, question: Question) -> tuple[Request, ...]:
        """What is sent for a question, to each model in turn."""
        return tuple(self._request(model, question) for model in self._models)

    async def to(self, question: Question) -> Answered:
        """The checked answer to a question, from the first model that gives one.

        Raises:
            TeacherError: if none does; the last model's.
        """
        for model in self._models[:-1]:
            try:
                return await self._from(model, question)
            except (BadReplyError, TransportError, ModelError) as error:
                if model not in self._failed_models:
                    self._failed_models.add(model)
                    log.warning("%s; asking the next model, now and whenever this one fails", error)
        return await self._from(self._models[-1], question)

    def _request(self, model: str, question: Question) -> Request:
        return Request(model, question, {**question.sampling, **self._sampling})

    async def _from(self, model: str, question: Question) -> Answered:
        """Equal questions share one flight, also while it is under way."""
        self._client.raise_if_given_up()
        request = self._request(model, question)
        while (flight := self._flights.get(request.key)) is not None:
            try:
                answered = await asyncio.shield(flight)
            except asyncio.CancelledError:
                if _cancelled():
                    raise
            except (BadReplyError, TransportError) as error:
                raise repeated(error) from None
            else:
                return answered._replace(calls=0, cost_usd=0.0)
        flight = self._flights[request.key] = asyncio.get_running_loop().create_future()
        try:
            answered = await self._fetch(request)
        except asyncio.CancelledError:  # this row alone is given up: the next of those that wait asks itself
            flight.cancel()
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # so that it is not reported as one that nobody has seen
            raise
        else:
            flight.set_result(answered)
            return answered
        finally:
            del self._flights[request.key], flight  # an error that held its flight would live until the next collection

    async def _fetch(self, request: Request) -> Answered:
        """Look into the store; if there is nothing, ask the model, unless another process is asking it just now."""
        pause = 0.02
        while True:
            stored = self._store.get(request.key)
            if stored is not None:
                return self._checked(request, stored)
            if spoilt := self._spoilt.get(request.key):
                raise repeated(spoilt)
            if self._offline:
                missing = f"offline, and the store {self._store.path} has no answer of {request.model} to this"
                if not self._said_missing:
                    self._said_missing = True
                    log.warning("%s; what is missing gets no label", missing)
                raise TransportError(missing, remembered=True)
            request.pack()
            if self._store.get_or_claim(request.key, seconds=CLAIM_S) is True:
                self._renewal = self._renewal or asyncio.get_running_loop().call_later(CLAIM_S / 4, self._renew_claims)
                break
            await asyncio.sleep(pause)
            pause = min(1.0, 2 * pause)
        try:
            return await self._call(request)
        finally:
            self._store.release(request.key)

    def _checked(self, request: Request, stored: Answer) -> Answered:
        """What the store says; it may have been imported, or edited."""
        try:
            request.question.read(stored.text)
        except BadReplyError as error:
            raise StoreError(
                f"the store {self._store.path} has an answer of {stored.model} that cannot be used: {error}. "
                f"{self._store.how_to_drop(request.key)}"
            ) from None
        return Answered(stored.text, stored.model, 0, 0.0)

    def _renew_claims(self) -> None:
        """Questions may wait for long: for a budget, for requests a minute, for a provider that is not available."""
        self._renewal = None
        if self._flights:
            with contextlib.suppress(StoreError):  # whoever has an answer to store will say so
                self._store.renew(seconds=CLAIM_S)
            self._renewal = asyncio.get_running_loop().call_later(CLAIM_S / 4, self._renew_claims)

    async def _call(self, request: Request) -> Answered:
        """Ask the model; a bad reply gets one repair turn that quotes what was wrong."""
        turn, replies, costs = request, [], []
        for model in self._models[1:]:
            self._client.check(model)  # a misspelt fallback is told before anything is paid for
        while True:
            reply = await self._client.ask(
                turn, lambda call: self._record(call.model_copy(update={"key": request.key}))
            )
            costs.append(reply.cost_usd)
            row = call_of(turn, reply, key=request.key)
            try:
                text = _read(turn, reply)
            except BadReplyError as error:
                replies.append(reply.text)
                self.bad_replies += 1
                self._record(row.model_copy(update={"outcome": "bad_reply", "problem": f"{error.kind}: {error}"}))
                if turn is not request or error.kind == "refusal":
                    said = f". It said: {short(reply.text)}" if error.kind == "json" else ""
                    bad = BadReplyError(f"{request.model}: {error}{said}", kind=error.kind, replies=tuple(replies))
                    self._spoilt[request.key] = repeated(bad)
                    raise bad from None
                turn = request.repaired(reply.text, str(error), longer=reply.finish == "length")
            else:
                answer = Answer(text, reply.model)
                written = self._record(row, answer)
                if written not in (None, answer):  # a second stage has to quote what the next run will find
                    answer = Answer(self._checked(request, written).text, reply.model)
                return Answered(answer.text, reply.model, len(costs), total(costs))

    def _record(self, call: Call, answer: Answer | None = None) -> Answer | None:
        """Log a call and store its answer; where that fails, nothing more is asked, since answers would be lost.

        Returns:
            The answer as it was written.

        Raises:
            StoreError: if the store cannot be written.
        """
        try:
            return self._store.record(call, answer)
        except StoreError as error:
            self._client.stop(str(error))
            raise


def _cancelled() -> bool:
    """Whether the running task itself is to end, not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _read(turn: Request, reply: Reply) -> str:
    """The checked answer; what is wrong with a reply is said in one short line, whatever the reply holds."""
    try:
        return turn.question.read(reply.usable())
    except RecursionError:
        raise BadReplyError("the JSON is nested too deep", kind="json") from None
    except BadReplyError as error:
        cut_off = reply.finish == "length" and error.kind != "truncated"
        problem = f"the reply was cut off at max_tokens: {error}" if cut_off else str(error)
        problem = " ".join(problem.split())[:MOST_CHARS]
        raise BadReplyError(problem, kind="truncated" if cut_off else error.kind) from None


Failed = TypeVar("Failed", bound=BadReplyError | TransportError)


def repeated(error: Failed) -> Failed:
    """The same error for another row: nothing was asked for it, and nothing new failed."""
    again = copy.copy(error)
    again.__traceback__ = None
    again.remembered = True
    return again
