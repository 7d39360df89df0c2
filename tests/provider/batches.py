"""Files and batches of OpenAI's and vLLM's format: https://platform.openai.com/docs/api-reference/batch."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .conversation import Outcome, Wire
from .exchange import Exchange
from .faults import FAULTS

if TYPE_CHECKING:
    from .server import Provider

DISCOUNT = 0.5


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Batches:
    """The batches of a provider, and what goes wrong with them.

    Attributes:
        fate: what becomes of a line, by its number in the batch and the number of the batch: None (it is answered),
            ``"error"``, ``"lost"``, ``"repeated"``, ``"stranger"`` (a line that nobody asked for follows it),
            ``"broken"`` (half a line), or the name of a fault that spoils a reply.
        ends: how each batch ends, by its number; ``"completed"`` by default.
        polls: how often a batch is looked at before it is over.
        created: the batches, by id, in the order in which they arrived.
        keys: the keys that came with requests to these addresses.
    """

    fate: Callable[[int, int], str | None] = lambda *_: None
    ends: Callable[[int], str] = lambda *_: "completed"
    polls: int = 1
    drop_reply: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)

    def add_routes(self, app: web.Application, provider: Provider, wire: Wire) -> None:
        """Serve a wire's files and batches."""
        handlers = _Handlers(self, provider, wire)
        for method, path, handler in (
            ("POST", "files", handlers.upload),
            ("POST", "batches", handlers.create),
            ("GET", "batches", handlers.listed),
            ("GET", "batches/{id}", handlers.retrieve),
            ("GET", "files/{id}/content", handlers.content),
        ):
            app.router.add_route(method, f"{wire.base}/{path}", handlers.noting_the_key(handler))

    def add_file(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        about = {"id": name, "object": "file", "bytes": len(content), "created_at": 1, "filename": "batch.jsonl"}
        return about | {"purpose": "batch", "status": "processed"}

    def run(self, provider: Provider, wire: Wire, batch: dict[str, Any]) -> None:
        number = [*self.created].index(batch["id"])
        batch["status"] = self.ends(number)
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "the file is too large"}]}
            return
        answered, failed = list[str](), list[str]()
        lines = self.files[batch["input_file_id"]].splitlines()
        for place, line in enumerate(lines):
            if batch["status"] == "expired" and place >= len(lines) // 2:
                failed.append(
                    _row(json.loads(line)["custom_id"], None, {"code": "batch_expired", "message": "too late"})
                )
                continue
            fate = self.fate(place, number)
            rows = self._answer(provider, wire, json.loads(line), fate)
            (failed if fate == "error" else answered).extend(rows)
        batch["output_file_id"] = self.add_file("\n".join(answered).encode())["id"]
        if failed:
            batch["error_file_id"] = self.add_file("\n".join(failed).encode())["id"]

    def _answer(self, provider: Provider, wire: Wire, asked: dict[str, Any], fate: str | None) -> list[str]:
        key = asked["custom_id"]
        if fate == "error":
            body = {"error": {"message": "The server had an error", "type": "server_error"}}
            return [_row(key, {"status_code": 500, "request_id": "r", "body": body}, None)]
        objection = wire.objection(asked["body"])
        assert objection is None, objection
        seen = wire.read(_NOBODY, asked["body"])
        exchange = Exchange(replace(seen, tokens_per_picture=provider.tokens_per_picture), fault=f"batch {fate or ''}")
        provider.log.append(exchange)
        outcome = Outcome(provider.answer(exchange.seen))
        if fate in FAULTS:
            outcome = FAULTS[fate].spoil(outcome)
        exchange.charge(wire.price, outcome)
        exchange.cost_usd *= DISCOUNT
        row = _row(key, {"status_code": 200, "request_id": "r", "body": wire.write(exchange.seen, outcome)}, None)
        exchange.close(200, row.encode(), outcome.text)
        also = {"lost": [], "repeated": [row, row], "broken": [row[: len(row) // 2]]}
        return also.get(fate or "", [row, _row("x" * 40, None, None)] if fate == "stranger" else [row])


class _Handlers:
    """What answers the requests to one wire's files and batches."""

    def __init__(self, batches: Batches, provider: Provider, wire: Wire) -> None:
        self.batches, self.provider, self.wire = batches, provider, wire

    def noting_the_key(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.batches.keys.add(request.headers.get("Authorization", "").removeprefix("Bearer "))
            return await handler(request)

        return handle

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        return web.json_response(self.batches.add_file(form["file"].file.read()))

    async def create(self, request: web.Request) -> web.Response:
        name = f"batch_{len(self.batches.created)}"
        batch = {"id": name, "status": "in_progress", "polls": self.batches.polls, **await request.json()}
        self.batches.created[name] = batch
        if self.batches.drop_reply:
            request.transport.close()
        return web.json_response(_public(batch))

    async def listed(self, request: web.Request) -> web.Response:  # noqa: ARG002
        data = [_public(batch) for batch in reversed(self.batches.created.values())]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        if (batch := self.batches.created.get(request.match_info["id"])) is None:
            return web.json_response({"error": {"message": "No such batch", "type": "invalid"}}, status=404)
        batch["polls"] -= 1
        if batch["polls"] < 0 and batch["status"] == "in_progress":
            self.batches.run(self.provider, self.wire, batch)
        return web.json_response(_public(batch))

    async def content(self, request: web.Request) -> web.Response:
        content = self.batches.files[request.match_info["id"]]
        return web.Response(body=content, content_type="application/octet-stream")


class _Nobody:
    headers: dict[str, str] = {}  # noqa: RUF012


_NOBODY: Any = _Nobody()


def _row(key: str, response: dict[str, Any] | None, error: dict[str, Any] | None) -> str:
    return json.dumps({"id": f"batch_req_{key}", "custom_id": key, "response": response, "error": error})


def _public(batch: dict[str, Any]) -> dict[str, Any]:
    about = {"object": "batch", "created_at": 1, "output_file_id": None, "error_file_id": None, "errors": None}
    counts = {"total": 2, "completed": 1, "failed": 0}
    return about | {"request_counts": counts} | {name: value for name, value in batch.items() if name != "polls"}
