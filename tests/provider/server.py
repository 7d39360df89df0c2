"""A model provider on loopback: five wire formats over real HTTP, scripted faults, and a log of all that was said."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Self

from aiohttp import web

from .answers import fitting_answer
from .anthropic import Anthropic
from .batches import Batches
from .conversation import TOKENS_PER_PICTURE, Outcome, Refused, Seen, Wire
from .exchange import Exchange
from .faults import INVALID_BYTES, Fault
from .gemini import Gemini
from .ollama import MODEL_CARD, Ollama
from .openai import VLLM, OpenAI
from .sockets import break_connection, send

WIRES: dict[str, Wire] = {wire.name: wire for wire in (OpenAI(), Gemini(), Anthropic(), Ollama(), VLLM())}
RETIRED = frozenset({"gemini-1.5-flash", "gemini-1.5-pro", "gemini-2.0-flash", "claude-3-opus-20240229"})
_VARIABLES = {name: name.upper() for name in WIRES} | {"vllm": "HOSTED_VLLM"}

Faults = Callable[[Seen], Fault | None] | Iterable[Fault | None]


def environment(url: str) -> dict[str, str]:
    """The environment variables with which LiteLLM finds all five providers below ``url``."""
    bases = {f"{_VARIABLES[name]}_API_BASE": url + wire.base for name, wire in WIRES.items()}
    return bases | {f"{_VARIABLES[name]}_API_KEY": wire.key for name, wire in WIRES.items() if wire.key}


def closed_url() -> str:
    """The URL of a port on which nobody listens: connections to it are refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


class Provider:
    """Five model providers in one server on 127.0.0.1, in a thread of its own.

    Args:
        latency: seconds from a request to its reply.
        answer: what the model says to a request; by default something that fits its schema.
        faults: what goes wrong: a function of the request, or an iterable from which each request takes the next
            item. None, and an iterable that has ended, mean that nothing goes wrong.
        drip: seconds that a dripping reply takes.
        port: a port, or 0 for any free one.
        tokens_per_picture: how many tokens a picture is billed at.

    Attributes:
        strays: the requests that arrived where no provider is, by path, with their headers and bodies.
        batches: the batches of requests, and what goes wrong with them.
        batches: the batches of requests, and what goes wrong with them.
        together: no reply is sent before so many requests have been in flight at once.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        answer: Callable[[Seen], str] = fitting_answer,
        faults: Faults = (),
        drip: float = 1.0,
        port: int = 0,
        tokens_per_picture: int = TOKENS_PER_PICTURE,
    ) -> None:
        self.latency, self.answer, self.faults, self.drip = latency, answer, faults, drip
        self.tokens_per_picture = tokens_per_picture
        self.log: list[Exchange] = []
        self.strays: list[tuple[str, dict[str, str], bytes]] = []
        self.batches = Batches()
        self.batches = Batches()
        self.in_flight = self.peak_in_flight = self.together = 0
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def faults(self) -> Callable[[Seen], Fault | None]:
        """The fault of each request; set it to a function or to an iterable."""
        return self._next_fault

    @faults.setter
    def faults(self, faults: Faults) -> None:
        if callable(faults):
            self._next_fault = faults
        else:
            script = iter(faults)
            self._next_fault = lambda _: next(script, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that point LiteLLM here, with keys that are accepted."""
        return environment(self.url)

    @property
    def cost_usd(self) -> float:
        return sum(exchange.cost_usd for exchange in self.log)

    @property
    def answers(self) -> list[str]:
        """The texts of all answers that were sent whole."""
        return [exchange.answer for exchange in self.log if exchange.answer is not None]

    def model_args(self, name: str) -> dict[str, str]:
        """The arguments with which a LiteLLM call reaches one of the five without the environment."""
        wire = WIRES[name]
        return {"model": wire.model, "api_base": self.url + wire.base, "api_key": wire.key or "none"}

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(30):
            raise TimeoutError("the provider did not start within 30 s")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=2**26)
        for wire in WIRES.values():
            application.router.add_post(wire.base + wire.route, self._handler(wire))
            if wire.name in ("openai", "vllm"):
                self.batches.add_routes(application, self, wire)
            if wire.name in ("openai", "vllm"):
                self.batches.add_routes(application, self, wire)
        application.router.add_post("/ollama/api/show", _show_model)
        application.router.add_get("/log", self._show_log)
        application.router.add_route("*", "/{stray:.*}", self._stray)
        # Handlers are cancelled when their client leaves, so that a reply that never comes ends with its test.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024).start()
        self._port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _show_log(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.json_response([exchange.as_dict() for exchange in self.log])

    async def _stray(self, request: web.Request) -> web.Response:
        self.strays.append((request.path, dict(request.headers), await request.read()))
        return web.json_response({})

    def _handler(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            exchange = Exchange(replace(wire.read(request, body), tokens_per_picture=self.tokens_per_picture))
            self.log.append(exchange)
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            try:
                refused = _refusal(wire, exchange.seen, body)
                return await self._respond(wire, request, exchange, refused)
            finally:
                self.in_flight -= 1

        return handle

    async def _respond(
        self, wire: Wire, request: web.Request, exchange: Exchange, refused: Refused | None
    ) -> web.StreamResponse:
        seen, fault = exchange.seen, None
        if refused is None and (fault := self._next_fault(seen)):
            exchange.fault, refused = fault.name, fault.refused
        if refused is None:
            outcome = Outcome(self.answer(seen))
            if fault and fault.spoil:
                outcome = fault.spoil(outcome)
            exchange.charge(wire.price, outcome)
            if outcome.finish == "filter":
                refused = wire.filter_error
        await asyncio.sleep(self.latency)
        while self.peak_in_flight < self.together:
            await asyncio.sleep(0.01)
        if refused is not None:
            return await _send_error(wire, request, exchange, refused)
        body = wire.write(seen, outcome) | (fault.fields if fault else {})
        content = json.dumps(body, ensure_ascii=False).encode()
        content = content.replace(INVALID_BYTES.encode(), b"\xff\xfe\x80")
        if fault and fault.kind == "socket":
            return await break_connection(fault.name, request, exchange, content, outcome.text, self.drip)
        exchange.close(200, content, outcome.text)
        headers = fault.headers if fault else {}
        return await send(
            request, exchange, web.Response(body=content, headers=headers, content_type="application/json")
        )


async def _show_model(request: web.Request) -> web.Response:  # noqa: ARG001
    return web.json_response(MODEL_CARD)


def _refusal(wire: Wire, seen: Seen, body: dict[str, Any]) -> Refused | None:
    """What a provider that is in order refuses: strangers, retired models, and requests that break its rules."""
    if wire.needs_key and seen.key != wire.key:
        return wire.unknown_key(seen.key)
    if seen.model in RETIRED:
        return wire.unknown_model(seen.model)
    why = wire.objection(body)
    return Refused(400, why) if why else None


async def _send_error(wire: Wire, request: web.Request, exchange: Exchange, refused: Refused) -> web.StreamResponse:
    told = replace(refused, message=refused.message.replace("{key}", exchange.seen.key or ""))
    body, headers = wire.error(told)
    content = json.dumps(body).encode()
    if 300 <= refused.status < 400:
        headers["Location"] = f"http://localhost:{request.url.port}/elsewhere{request.path}"
    response = web.Response(status=refused.status, body=content, headers=headers, content_type="application/json")
    exchange.close(refused.status, content)
    return await send(request, exchange, response)
