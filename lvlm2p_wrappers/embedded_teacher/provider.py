"""LiteLLM custom provider ``embedded``: answers chat completions with the planner."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import litellm
from litellm import CustomLLM
from litellm.llms.custom_llm import CustomLLMError
from litellm.types.utils import Choices, Message, ModelResponse, Usage

from . import MODEL
from .replies import answer
from .request import Messages, RefusedError, read_options, read_request

_PROVIDER = MODEL.partition("/")[0]

_CARD = {
    "litellm_provider": _PROVIDER,
    "mode": "chat",
    "max_input_tokens": 1_000_000,
    "max_output_tokens": 1_000_000,
    "input_cost_per_token": 0.0,
    "output_cost_per_token": 0.0,
    "cache_creation_input_token_cost": 0.0,
    "cache_read_input_token_cost": 0.0,
    "supports_vision": True,
    "supports_response_schema": True,
}


class EmbeddedPlanner(CustomLLM):  # type: ignore[misc]
    """The handler that LiteLLM calls."""

    def completion(
        self,
        model: str,
        messages: Messages,
        model_response: ModelResponse,
        optional_params: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> ModelResponse:
        """Answer one chat completion; of ``optional_params`` only ``response_format`` counts.

        Raises:
            CustomLLMError: 404 for another model, 400 for a wrong option or a conversation without a picture.
        """
        try:
            options = read_options(model)
            request = read_request(messages, (optional_params or {}).get("response_format"))
        except RefusedError as error:
            raise CustomLLMError(status_code=error.status, message=str(error)) from error
        text = answer(request, options)
        model_response.model = model
        model_response.created = int(time.time())
        model_response.choices = [
            Choices(index=0, finish_reason="stop", message=Message(role="assistant", content=text))
        ]
        model_response.usage = _usage(messages, text)
        # The registered price is that of the bare name; a model string with options is free as well.
        model_response._hidden_params["response_cost"] = 0.0
        return model_response

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Answer one chat completion on the event loop: a few milliseconds, no longer than handing it to a thread."""
        return self.completion(*args, **kwargs)


def _usage(messages: Messages, reply: str) -> Usage:
    """A rough token count: four characters a token, and Gemini's 258 tokens a picture."""
    characters, pictures = 0, 0
    for message in messages:
        content = message.get("content") or ""
        for part in [{"text": content}] if isinstance(content, str) else content:
            characters += len(part.get("text") or "")
            pictures += part.get("type") == "image_url"
    sent, received = characters // 4 + 258 * pictures, len(reply) // 4
    return Usage(prompt_tokens=sent, completion_tokens=received, total_tokens=sent + received)


def register_provider() -> None:
    """Add the provider to LiteLLM's list, once."""
    if not any(entry["provider"] == _PROVIDER for entry in litellm.custom_provider_map):
        litellm.custom_provider_map.append({"provider": _PROVIDER, "custom_handler": EmbeddedPlanner()})
        litellm.register_model({MODEL: _CARD})
    litellm.utils.custom_llm_setup()
