"""The wire formats of OpenAI and vLLM: chat completions."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from .conversation import Outcome, Refused, Seen, Turn, decode_data_url

_ERROR_TYPES = {403: "request_forbidden", 408: "timeout", 429: "requests"}
_ERROR_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def _turn(message: dict[str, Any]) -> Turn:
    content = message.get("content") or ""
    if isinstance(content, str):
        return Turn(message["role"], content)
    text = "\n".join(part["text"] for part in content if part["type"] == "text")
    pictures = [decode_data_url(part["image_url"]["url"]) for part in content if part["type"] == "image_url"]
    return Turn(message["role"], text, tuple(pictures))


def _bearer(request: web.Request) -> str | None:
    return request.headers.get("Authorization", "").removeprefix("Bearer ") or None


def _strictness(schema: dict[str, Any], where: str = "()") -> str | None:
    """Why OpenAI's strict mode would refuse a schema: every object must be closed and require all it has."""
    if schema.get("type") == "array":
        return _strictness(schema["items"], f"{where}[]")
    if schema.get("type") != "object":
        return None
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is not False:
        return f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
    if sorted(schema.get("required", [])) != sorted(properties):
        return f"In context={where}, 'required' is required to be supplied and to include every key in properties."
    found = (_strictness(each, f"{where}.{name}") for name, each in properties.items())
    return next((why for why in found if why), None)


class OpenAI:
    """https://platform.openai.com/docs/api-reference/chat."""

    name = "openai"
    model = "openai/gpt-4o-mini"
    base = "/openai/v1"
    route = "/chat/completions"
    key = "sk-test-openai-5f1e0d7c3b"
    needs_key = True
    price = (0.15, 0.60)
    filter_error: Refused | None = None

    def read(self, request: web.Request, body: dict[str, Any]) -> Seen:
        wanted = body.get("response_format") or {}
        options = {name: body[name] for name in body if name not in ("messages", "model", "response_format")}
        options.setdefault("max_tokens", body.get("max_completion_tokens"))
        turns = tuple(_turn(message) for message in body["messages"])
        schema = wanted.get("json_schema", {}).get("schema")
        return Seen(self.name, body["model"], _bearer(request), turns, schema, options)

    def objection(self, body: dict[str, Any]) -> str | None:
        wanted = (body.get("response_format") or {}).get("json_schema") or {}
        if wanted.get("strict") and (why := _strictness(wanted["schema"])):
            return f"Invalid schema for response_format '{wanted['name']}': {why}"
        if "reasoning_effort" in body and body["model"].startswith("gpt-4"):
            return "Unrecognized request argument supplied: reasoning_effort"
        return None

    def write(self, seen: Seen, outcome: Outcome) -> dict[str, Any]:
        silent = outcome.finish in ("refusal", "filter", "none") or not outcome.text
        refusal = "I'm sorry, I can't assist with that request." if outcome.finish == "refusal" else None
        finish = {"length": "length", "filter": "content_filter"}.get(outcome.finish, "stop")
        message = {"role": "assistant", "content": None if silent else outcome.text, "refusal": refusal}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        reply: dict[str, Any] = {
            "id": "chatcmpl-test",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": outcome.answered(seen),
            "choices": [] if outcome.finish == "empty" else [choice],
        }
        if tokens := outcome.reported(seen):
            reply["usage"] = {
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "total_tokens": sum(each for each in tokens if isinstance(each, int)),
                "completion_tokens_details": {"reasoning_tokens": min(outcome.thinking_tokens, outcome.tokens(seen))},
            }
        return reply

    def unknown_key(self, key: str | None) -> Refused:
        masked = f"{(key or '')[:8]}{'*' * 10}"
        return Refused(401, f"Incorrect API key provided: {masked}. You can find your API key on your account page.")

    def unknown_model(self, model: str) -> Refused:
        return Refused(404, f"The model `{model}` does not exist or you do not have access to it.")

    def error(self, refused: Refused) -> tuple[dict[str, Any], dict[str, str]]:
        kind = _ERROR_TYPES.get(refused.status, "server_error" if refused.status >= 500 else "invalid_request_error")
        code = _ERROR_CODES.get(refused.status)
        return {"error": {"message": refused.message, "type": kind, "param": None, "code": code}}, refused.headers


class VLLM(OpenAI):
    """https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html: OpenAI's format, served at home."""

    name = "vllm"
    model = "hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct"
    base = "/vllm/v1"
    key = "token-vllm-93ab61"
    needs_key = False
    price = (0.0, 0.0)

    def objection(self, body: dict[str, Any]) -> str | None:  # noqa: ARG002
        return None  # guided decoding takes any schema, and unknown fields are ignored

    def error(self, refused: Refused) -> tuple[dict[str, Any], dict[str, str]]:
        body, headers = super().error(refused)
        kind = "NotFoundError" if refused.status == 404 else "BadRequestError"
        return {"error": body["error"] | {"type": kind, "code": refused.status}}, headers
