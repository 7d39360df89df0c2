"""The wire format of Ollama: chat, without streaming."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from .conversation import Outcome, Refused, Seen, Turn


def _turn(message: dict[str, Any]) -> Turn:
    pictures = tuple(base64.b64decode(each) for each in message.get("images") or ())
    return Turn(message["role"], message.get("content") or "", pictures)


class Ollama:
    """https://docs.ollama.com/api/chat."""

    name = "ollama"
    model = "ollama_chat/llava"
    base = "/ollama"
    route = "/api/chat"
    key = ""
    needs_key = False
    price = (0.0, 0.0)
    filter_error: Refused | None = None

    def read(self, request: web.Request, body: dict[str, Any]) -> Seen:  # noqa: ARG002
        options = dict(body.get("options", {}))
        options |= {"max_tokens": options.pop("num_predict", None), "think": body.get("think")}
        turns = tuple(_turn(message) for message in body["messages"])
        schema = body["format"] if isinstance(body.get("format"), dict) else None
        return Seen(self.name, body["model"], None, turns, schema, options)

    def objection(self, body: dict[str, Any]) -> str | None:
        if body.get("think"):
            return f'"{body["model"]}" does not support thinking'
        return None

    def write(self, seen: Seen, outcome: Outcome) -> dict[str, Any]:
        says = outcome.text if outcome.finish in ("stop", "length") else ""
        if outcome.finish == "refusal":  # there is no native refusal: an unwilling model says so in prose
            says = "I'm sorry, I can't help with that."
        prompt, completion = outcome.reported(seen) or (None, None)
        reply = {
            "model": outcome.answered(seen),
            "created_at": "2026-11-20T12:00:00.000000Z",
            "message": {"role": "assistant", "content": says},
            "done": True,
            "done_reason": "length" if outcome.finish == "length" else "stop",
            "prompt_eval_count": prompt,
            "eval_count": completion,
        }
        return {name: value for name, value in reply.items() if value is not None}

    def unknown_key(self, key: str | None) -> Refused:  # noqa: ARG002
        return Refused(401, "unauthorized")

    def unknown_model(self, model: str) -> Refused:
        return Refused(404, f"model '{model}' not found")

    def error(self, refused: Refused) -> tuple[dict[str, Any], dict[str, str]]:
        return {"error": refused.message}, refused.headers


MODEL_CARD = {
    "details": {"family": "llama", "families": ["llama", "clip"], "parameter_size": "7B"},
    "model_info": {"general.architecture": "llama", "llama.context_length": 4096},
    "capabilities": ["completion", "vision"],
    "template": "{{ .System }} USER: {{ .Prompt }} ASSISTANT:",
}
"""What ``/api/show`` says about a model; LiteLLM asks before it sends the first chat."""
