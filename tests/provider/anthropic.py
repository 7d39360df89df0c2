"""The wire format of Anthropic: messages, with native structured output or a forced tool."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from aiohttp import web

from .conversation import Outcome, Refused, Seen, Turn

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _turn(message: dict[str, Any]) -> Turn:
    content = message["content"]
    if isinstance(content, str):
        return Turn(message["role"], content)
    text = "\n".join(part["text"] for part in content if part["type"] == "text")
    pictures = [base64.b64decode(part["source"]["data"]) for part in content if part["type"] == "image"]
    return Turn(message["role"], text, tuple(pictures))


def _forced_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    name = body.get("tool_choice", {}).get("name")
    return next((tool for tool in body.get("tools", []) if tool["name"] == name), None)


def _finite_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, if a tool's input can carry it."""
    try:
        value = json.loads(text, parse_constant=lambda _: math.nan)
        json.dumps(value, allow_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Anthropic:
    """https://docs.anthropic.com/en/api/messages."""

    name = "anthropic"
    model = "anthropic/claude-haiku-4-5"
    base = "/anthropic"
    route = "/v1/messages"
    key = "sk-ant-test-2b9e44d0aa"
    needs_key = True
    price = (1.0, 5.0)
    filter_error: Refused | None = Refused(400, "Output blocked by content filtering policy")

    def read(self, request: web.Request, body: dict[str, Any]) -> Seen:
        tool = _forced_tool(body)
        wanted = body.get("output_format") or body.get("output_config", {}).get("format") or {}
        turns = [_turn(message) for message in body["messages"]]
        if system := body.get("system"):
            turns.insert(0, _turn({"role": "system", "content": system}))
        options = {name: body[name] for name in body if name not in ("messages", "model", "system", "tools")}
        options["tool"] = tool["name"] if tool else None
        schema = tool["input_schema"] if tool else wanted.get("schema")
        return Seen(self.name, body["model"], request.headers.get("x-api-key"), tuple(turns), schema, options)

    def objection(self, body: dict[str, Any]) -> str | None:
        if body.get("thinking", {}).get("type") != "enabled":
            return None
        if body.get("temperature", 1) != 1:
            return "`temperature` may only be set to 1 when thinking is enabled."
        if body["thinking"]["budget_tokens"] >= body["max_tokens"]:
            return "`max_tokens` must be greater than `thinking.budget_tokens`."
        if _forced_tool(body):
            return "Thinking may not be enabled when tool_choice forces tool use."
        return None

    def write(self, seen: Seen, outcome: Outcome) -> dict[str, Any]:
        stop = {"length": "max_tokens", "refusal": "refusal"}.get(outcome.finish, "end_turn")
        content: list[dict[str, Any]] = []
        if outcome.text and outcome.finish in ("stop", "length"):
            content = [{"type": "text", "text": outcome.text}]
            arguments = _finite_object(outcome.text) if seen.options["tool"] else None
            if arguments is not None:
                name = seen.options["tool"]
                content = [{"type": "tool_use", "id": "toolu_test", "name": name, "input": arguments}]
                stop = "tool_use"
        elif outcome.finish == "none":
            content = [{"type": "text", "text": ""}]
        reply: dict[str, Any] = {
            "id": "msg_test",
            "type": "message",
            "role": "assistant",
            "model": outcome.answered(seen),
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
        }
        if tokens := outcome.reported(seen):
            reply["usage"] = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
        return reply

    def unknown_key(self, key: str | None) -> Refused:  # noqa: ARG002
        return Refused(401, "invalid x-api-key")

    def unknown_model(self, model: str) -> Refused:
        return Refused(404, f"model: {model}")

    def error(self, refused: Refused) -> tuple[dict[str, Any], dict[str, str]]:
        kind = _ERROR_TYPES.get(refused.status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": "req_test"}
        return body, refused.headers | {"request-id": "req_test"}
