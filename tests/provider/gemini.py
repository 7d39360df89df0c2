"""The wire format of the Gemini API: generateContent."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from .conversation import Outcome, Refused, Seen, Turn

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def _turn(role: str, content: dict[str, Any]) -> Turn:
    parts = content["parts"]
    text = "\n".join(part["text"] for part in parts if "text" in part)
    pictures = [base64.b64decode(part["inline_data"]["data"]) for part in parts if "inline_data" in part]
    return Turn(role, text, tuple(pictures))


class Gemini:
    """https://ai.google.dev/api/generate-content."""

    name = "gemini"
    model = "gemini/gemini-2.5-flash-lite"
    base = "/gemini/v1beta"
    route = "/models/{model}:generateContent"
    key = "AIzaTest-gemini-77c0ffee"
    needs_key = True
    price = (0.10, 0.40)
    filter_error: Refused | None = None

    def read(self, request: web.Request, body: dict[str, Any]) -> Seen:
        config = dict(body.get("generationConfig", {}))
        schema = config.pop("response_json_schema", None) or config.pop("response_schema", None)
        config["max_tokens"] = config.pop("max_output_tokens", None)
        turns = [_turn("assistant" if each.get("role") == "model" else "user", each) for each in body["contents"]]
        if system := body.get("system_instruction"):
            turns.insert(0, _turn("system", system))
        key = request.headers.get("x-goog-api-key") or request.query.get("key")
        return Seen(self.name, request.match_info["model"], key, tuple(turns), schema, config)

    def objection(self, body: dict[str, Any]) -> str | None:
        config = body.get("generationConfig", {})
        if "response_json_schema" in config and config.get("response_mime_type") != "application/json":
            return "response_json_schema is only supported with response_mime_type application/json"
        return None

    def write(self, seen: Seen, outcome: Outcome) -> dict[str, Any]:
        thinking = min(outcome.thinking_tokens, outcome.tokens(seen))
        reply: dict[str, Any] = {"modelVersion": outcome.answered(seen), "responseId": "test"}
        if tokens := outcome.reported(seen):
            prompt, completion = tokens
            reply["usageMetadata"] = {
                "promptTokenCount": prompt,
                "candidatesTokenCount": completion - thinking if thinking else completion,
                "thoughtsTokenCount": thinking,
                "totalTokenCount": sum(each for each in tokens if isinstance(each, int)),
            }
        if outcome.finish == "refusal":  # the prompt itself was blocked: there is no candidate at all
            return reply | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        if outcome.finish == "empty":
            return reply | {"candidates": []}
        finish = {"length": "MAX_TOKENS", "filter": "SAFETY"}.get(outcome.finish, "STOP")
        candidate: dict[str, Any] = {"finishReason": finish, "index": 0, "content": {"role": "model"}}
        if outcome.text and outcome.finish in ("stop", "length"):
            candidate["content"]["parts"] = [{"text": outcome.text}]
        return reply | {"candidates": [candidate]}

    def unknown_key(self, key: str | None) -> Refused:  # noqa: ARG002
        return Refused(400, "API key not valid. Please pass a valid API key.")

    def unknown_model(self, model: str) -> Refused:
        return Refused(
            404,
            f"models/{model} is not found for API version v1beta, or is not supported for generateContent. "
            "Call ListModels to see the list of available models and their supported methods.",
        )

    def error(self, refused: Refused) -> tuple[dict[str, Any], dict[str, str]]:
        error: dict[str, Any] = {
            "code": refused.status,
            "message": refused.message,
            "status": _STATUS.get(refused.status, "UNKNOWN"),
        }
        if refused.retry_after is not None:  # in the body only: Google sends no Retry-After header
            error["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{refused.retry_after:g}s"}]
        return {"error": error}, {}
