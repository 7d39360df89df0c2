"""Sends a request to any model through LiteLLM, and the reply that came back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lvlm2p_wrappers import embedded_teacher
from lvlm2p_wrappers.client import catalogue, pricing
from lvlm2p_wrappers.client.litellm_loader import IN_PROCESS, load_litellm
from lvlm2p_wrappers.client.provider_errors import Traffic, classify, message_of
from lvlm2p_wrappers.records import Message, Question, Reply, Usage
from lvlm2p_wrappers.redaction import short
from lvlm2p_wrappers.replies import MAX_REPLY_CHARS


@dataclass(frozen=True, eq=False)
class Request:
    """One question to one model.

    Attributes:
        model: the LiteLLM model string, as the user wrote it.
        question: the conversation, the form of the reply and how it is checked.
        sampling: ``temperature``, ``max_tokens`` and the like.
        key: a digest of all that the answer may depend on: pixels, texts, schema, model and its version, sampling.
    """

    model: str
    question: Question
    sampling: Mapping[str, Any]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _key(self.model, self.question, self.sampling))

    def pack(self) -> None:
        """Take little memory from now on: the question is going to wait for its turn."""
        for message in self.question.messages:
            if message.picture is not None:
                message.picture.pack()


async def send(request: Request, *, timeout_s: float, api_base: str | None) -> Reply:
    """Make one call, without retries.

    Raises:
        FailedCallError: if no reply came back.
    """
    litellm = load_litellm()
    sampling: dict[str, Any] = dict(request.sampling)
    if "reasoning_effort" in sampling and request.model.startswith("anthropic/"):
        sampling.pop("temperature", None)  # Anthropic refuses a temperature where the model thinks
    if api_base:
        sampling["api_base"] = api_base
    started = time.perf_counter()
    try:
        with guard(request.model) as traffic:
            async with asyncio.timeout(timeout_s):
                response = await litellm.acompletion(
                    model=request.model,
                    messages=wire_messages(request),
                    response_format=response_format(request),
                    timeout=timeout_s,
                    # Retries are ours; LiteLLM's are not made by all of its routes, and OpenAI's client adds two.
                    num_retries=0,
                    max_retries=0,
                    drop_params=True,
                    **sampling,
                )
    except litellm.exceptions.ContentPolicyViolationError as error:
        # Some providers have no word for it in a reply: it is one all the same, and was not free.
        words = message_of(error)
        return Reply("", request.model, "content_filter", words, None, None, time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001 -- LiteLLM's own errors, its clients', and those of its bugs
        raise classify(error, request.model, timeout_s, traffic) from None
    return reply_of(response, request, time.perf_counter() - started)


def guard(model: str) -> contextlib.AbstractContextManager[Traffic]:
    """Hold what is sent over HTTP to the rules of one call."""
    if model.startswith(IN_PROCESS):
        return contextlib.nullcontext(Traffic())
    from lvlm2p_wrappers.client.http_guard import guarded

    return guarded(
        lambda sent: catalogue.check_recipient(model, sent.url.host, (str(sent.url), *sent.headers.values()))
    )


def _key(model: str, question: Question, sampling: Mapping[str, Any]) -> str:
    messages = [(m.role, m.text, m.picture.digest if m.picture else None) for m in question.messages]
    version = embedded_teacher.VERSION if model.split("?")[0] == embedded_teacher.MODEL else ""
    content = json.dumps([model, version, messages, question.schema.text, dict(sampling)], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def response_format(request: Request) -> dict[str, Any]:
    """The form of the reply, as OpenAI's format has it."""
    schema = {"name": request.question.stage, "strict": True, "schema": request.question.schema.json}
    return {"type": "json_schema", "json_schema": schema}


def wire_messages(request: Request) -> list[dict[str, Any]]:
    """The conversation in OpenAI's format."""
    return [_wire([*turn]) for _, turn in itertools.groupby(request.question.messages, lambda m: m.role)]


def _wire(turn: Sequence[Message]) -> dict[str, Any]:
    """The messages that one role says in a row, as one: some models' templates take no two."""
    if all(message.picture is None for message in turn):
        return {"role": turn[0].role, "content": "\n".join(message.text for message in turn)}
    content: list[dict[str, Any]] = []
    for message in turn:
        content.append({"type": "text", "text": message.text})
        if message.picture is not None:
            url = "data:image/png;base64," + base64.b64encode(message.picture.png).decode("ascii")
            content.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": turn[0].role, "content": content}


def reply_of(response: Any, request: Request, latency_s: float) -> Reply:
    """What came back, by LiteLLM's response; tokens and price are those that were checked."""
    choice = response.choices[0] if response.choices else None
    message = getattr(choice, "message", None)
    native = {**_native(choice), **_native(message)}
    refusal = native.get("refusal") or ("refusal" if native.get("stop_reason") == "refusal" else "")
    text = getattr(message, "content", None) or ""
    usage, cost_usd = _bill(response, request, text)
    return Reply(
        # Enough to see that it is too long; a lone surrogate could not be stored.
        text=text[: MAX_REPLY_CHARS + 1].encode("utf-8", "replace").decode("utf-8"),
        model=_answered(response, request.model),
        finish=str(getattr(choice, "finish_reason", "") or ""),
        refusal=str(refusal or ""),
        usage=usage,
        cost_usd=cost_usd,
        latency_s=latency_s,
    )


def _bill(response: Any, request: Request, text: str) -> tuple[Usage | None, float | None]:
    """The tokens that were used, and what they cost in US dollars; None where that is not known."""
    usage = getattr(response, "usage", None)
    if request.model.startswith(IN_PROCESS):  # our own count needs no check
        return usage and Usage(usage.prompt_tokens, usage.completion_tokens, 0), 0.0
    checked = pricing.checked(usage, request, text)
    pictures = sum(message.picture is not None for message in request.question.messages)
    return checked, pricing.cost(request.model, checked, pictures)


def _native(part: Any) -> dict[str, Any]:
    """What the provider said beyond the common format."""
    return getattr(part, "provider_specific_fields", None) or {}


def _answered(response: Any, model: str) -> str:
    """The provider's word for the model that answered, with the provider in front as in the model string."""
    name = short(str(getattr(response, "model", "") or ""))
    provider = model.split("/", 1)[0]
    if not name:
        return model
    return name if "/" not in model or name.startswith(provider + "/") else f"{provider}/{name}"
