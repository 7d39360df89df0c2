"""From a question to its checked answer: memory, store, whoever is asking already, the model, a repair turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from lvlm2p_wrappers.client import Client, Request
from lvlm2p_wrappers.errors import BadReplyError, ModelError, StoreError, TransportError, repeated
from lvlm2p_wrappers.records import Answer, Call, Question, Reply, total
from lvlm2p_wrappers.store import Store
from lvlm2p_wrappers.teacher.bad_replies import described, repair_turn
from lvlm2p_wrappers.teacher.claims import CLAIM_S, Claims
from lvlm2p_wrappers.teacher.config import TeacherConfig

log = logging.getLogger(__name__)

T = TypeVar("T")


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


class Resolver:
    """Answers questions, each asked once: while it is open, across runs, and across processes that share a store.

    It belongs to one event loop, and is the only one that logs calls. The store is used on a thread of its own: while
    another process holds its lock, replies go on arriving, and the time they wait is not their calls'.

    Args:
        model: asked first; the fallback models follow where it fails.
        config: the teacher's options.
        client: makes the calls.
        store: keeps the answers.

    Attributes:
        claims: those on the open questions, and the store's thread.
        bad_replies: how many replies could not be used.
    """

    def __init__(self, model: str, config: TeacherConfig, *, client: Client, store: Store) -> None:
        self.bad_replies = 0
        self._models = (model, *config.fallback_models)
        overrides = {name: getattr(config, name) for name in ("temperature", "max_tokens", "reasoning_effort")}
        self._sampling = {name: value for name, value in overrides.items() if value is not None}
        self._offline = config.offline
        self._client = client
        self._store = store
        # The open questions by key; and those whose reply stayed bad, which are not asked again in a run.
        self._futures: dict[str, asyncio.Future[Answered]] = {}
        self._failed_models: set[str] = set()
        self._warned = False
        self.claims = Claims(store, lambda: any(not future.done() for future in self._futures.values()))

    def requests(self, question: Question) -> tuple[Request, ...]:
        """What is sent for a question, to each model in turn."""
        return tuple(self._request(model, question) for model in self._models)

    async def answer(self, question: Question) -> Answered:
        """The checked answer to a question, from the first model that gives one.

        Raises:
            TeacherError: if none does; the last model's.
        """
        for model in self._models[:-1]:
            try:
                return await self._shared(self._request(model, question))
            except (BadReplyError, TransportError, ModelError) as error:
                if model not in self._failed_models:
                    self._failed_models.add(model)
                    log.warning("%s; asking the next model, now and whenever this one fails", error)
        return await self._shared(self._request(self._models[-1], question))

    async def finish(self) -> None:
        """Wait until the store's thread has done what it was given before."""
        await self._in_store(lambda: None)

    def _request(self, model: str, question: Question) -> Request:
        return Request(model, question, {**question.sampling, **self._sampling})

    async def _shared(self, request: Request) -> Answered:
        """One future for equal questions that are open at the same time."""
        self._client.raise_if_given_up()
        while (future := self._futures.get(request.key)) is not None:
            request.pack()
            try:
                answered = await asyncio.shield(future)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():  # it is this row that is given up
                    raise
            except (BadReplyError, TransportError) as error:
                raise repeated(error) from None
            else:
                return answered._replace(calls=0, cost_usd=0.0)
        future = self._futures[request.key] = asyncio.get_running_loop().create_future()
        is_bad = False
        try:
            future.set_result(answered := await self._found_or_asked(request))
            return answered
        except asyncio.CancelledError:  # this row alone is given up: the next of those that wait asks itself
            future.cancel()
            raise
        except BaseException as error:
            is_bad = isinstance(error, BadReplyError)
            # Without its traceback, which would keep the request for as long as a bad reply is remembered.
            future.set_exception(repeated(error) if isinstance(error, BadReplyError | TransportError) else error)
            future.exception()  # so that it is not reported as one that nobody has seen
            raise
        finally:
            if not is_bad:
                del self._futures[request.key]
            del future  # an error that held its future would live until the next collection

    async def _found_or_asked(self, request: Request) -> Answered:
        """The store's answer; else the model's, unless another process is asking it just now."""
        pause = 0.02
        try:
            while not isinstance(found := await self._look_up(request), Answer):
                request.pack()
                if found:
                    return await self._ask(request)
                await asyncio.sleep(pause)
                pause = min(1.0, 2 * pause)
            self._check(request, found)
            return Answered(*found, calls=0, cost_usd=0.0)
        except BaseException:
            self.claims.release(request.key)
            raise

    async def _look_up(self, request: Request) -> Answer | bool:
        """The store's answer; without one, whether the question is ours to ask."""
        if not self._offline:
            return await self._in_store(partial(self._store.get_or_claim, request.key, seconds=CLAIM_S))
        if answer := await self._in_store(partial(self._store.get, request.key)):
            return answer
        missing = f"offline, and the store {self._store.path} has no answer of {request.model} to this"
        if not self._warned:
            self._warned = True
            log.warning("%s; what is missing gets no label", missing)
        raise TransportError(missing, remembered=True)

    async def _ask(self, request: Request) -> Answered:
        """Ask the model; a bad reply gets one repair turn that quotes what was wrong."""
        if self.claims.renewal is None:
            self.claims.renew_later()
        for model in self._models[1:]:
            self._client.check(model)  # a misspelt fallback is told before anything is paid for
        turn, replies = request, list[Reply]()
        while True:
            replies.append(reply := await self._reply(turn, request.key))
            call = Call.of(turn.model, turn.question, turn.sampling, key=request.key, reply=reply)
            try:
                answer = Answer(turn.question.read(reply.usable()), reply.model)
            except (BadReplyError, RecursionError) as problem:
                self.bad_replies += 1
                error = described(problem, reply)
                await self._record(
                    call.model_copy(update={"outcome": "bad_reply", "problem": f"{error.kind}: {error}"})
                )
                turn = repair_turn(request, error, replies)
            else:
                written = await self._record(call, answer) or answer
                if written != answer:  # a second stage has to quote what the next run will find
                    self._check(request, written)
                return Answered(written.text, reply.model, len(replies), total([each.cost_usd for each in replies]))

    async def _reply(self, turn: Request, key: str) -> Reply:
        """What the model replies; attempts without a reply are logged under the key of the question that was asked."""
        logged: list[asyncio.Future[Answer | None]] = []
        try:
            return await self._client.ask(
                turn, lambda call: logged.append(self._record(call.model_copy(update={"key": key})))
            )
        finally:
            for one in logged:
                await one  # a store that fails is told

    def _record(self, call: Call, answer: Answer | None = None) -> asyncio.Future[Answer | None]:
        """Log a call and store its answer; where that fails, nothing more is asked, since answers would be lost.

        Returns:
            The answer as it will have been written. What waits for it may be given up; it is written all the same.
        """

        def record() -> Answer | None:
            try:
                return self._store.record(call, answer)
            except StoreError as error:
                self._client.stop(str(error))
                raise

        return self._in_store(record)

    def _check(self, request: Request, stored: Answer) -> None:
        """Read what the store says: it may have been imported, or edited."""
        try:
            request.question.read(stored.text)
        except BadReplyError as error:
            raise StoreError(
                f"the store {self._store.path} has an answer of {stored.model} that cannot be used: {error}. "
                f"{self._store.how_to_drop(request.key)}"
            ) from None

    def _in_store(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run something on the store's thread, to its end."""
        return asyncio.shield(asyncio.get_running_loop().run_in_executor(self.claims.thread, work))
