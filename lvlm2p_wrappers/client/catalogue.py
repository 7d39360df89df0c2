"""The model catalogue: what a model string means, the names of its keys, which current models could serve instead."""

from __future__ import annotations

import datetime
import difflib
import os
from collections.abc import Iterable

from lvlm2p_wrappers.client.litellm_loader import load_litellm
from lvlm2p_wrappers.errors import ModelError
from lvlm2p_wrappers.redaction import keys_in_environment

RETIRED = {"gemini/gemini-1.5": "gemini/gemini-2.5-flash-lite", "gemini/gemini-2.0": "gemini/gemini-2.5-flash-lite"}
"""Models that are gone, by the beginning of their name, and what stands nearest today."""

PROVIDERS = (
    "gemini/gemini-2.5-flash-lite",
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4-5",
    "ollama_chat/llava",
    "hosted_vllm/<model>",
)

KEYS = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    **{name: (f"{name.upper()}_API_KEY",) for name in ("deepseek", "groq", "mistral", "openai", "xai")},
}
"""The variables of providers that certainly need one of them; others find credentials elsewhere, too, as in a cloud."""


def recognise(model: str) -> str:
    """The provider that LiteLLM takes a model string to name.

    Raises:
        ModelError: if it knows none, or takes the string for something else than was meant.
    """
    litellm = load_litellm()
    try:
        name, provider, *_ = litellm.get_llm_provider(model)
    except litellm.exceptions.BadRequestError:
        name, provider = "", ""
    if not name:
        raise ModelError(
            f"{model!r} names no provider that LiteLLM knows. "
            f"A model string is provider/model, such as {', '.join(PROVIDERS)} or embedded/minigrid-planner."
        )
    if provider == "vertex_ai" and "/" not in model:
        raise ModelError(f"{model!r} means Google's Vertex AI to LiteLLM; write 'gemini/{model}' for the Gemini API")
    return str(provider)


def check(model: str, api_base: str | None) -> None:
    """Find what would keep every call to a model from working, before the first one.

    Raises:
        ModelError: if the provider is unknown, its key is missing, or the request would go elsewhere than meant.
    """
    provider = recognise(model)
    if provider == "aiohttp_openai":
        raise ModelError(f"{model}: LiteLLM would follow redirects; write openai/{model.partition('/')[2]}")
    if provider == "hosted_vllm" and not (api_base or os.environ.get("HOSTED_VLLM_API_BASE")):
        # LiteLLM would send picture and key to OpenAI.
        raise ModelError(f"{model}: set HOSTED_VLLM_API_BASE, or api_base, to the address of your vLLM server")
    if provider in ("ollama", "ollama_chat"):
        # LiteLLM asks the server about a model that is not in its list, during a call and after it, where no guard is.
        card = {"litellm_provider": provider, "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
        load_litellm().model_cost.setdefault(model, card)
    names = KEYS.get(provider, (f"{provider.upper()}_API_KEY",))
    if provider in KEYS and not any(os.environ.get(name) for name in names):
        raise missing_key(model)
    for name in names:
        if (key := os.environ.get(name, "")) != key.strip():
            raise ModelError(f"{model}: the value of {name} begins or ends with white space, such as a line break")


def check_recipient(model: str, host: str, sent: Iterable[str]) -> None:
    """Find what a request would carry to somebody else's host.

    LiteLLM falls back to OpenAI's key, and to OpenAI's address, for most providers that speak OpenAI's format.

    Args:
        model: who is asked.
        host: where the request goes.
        sent: its URL and the values of its headers.

    Raises:
        ModelError: if it has another provider's key in it, or goes to OpenAI with what is meant for another.
    """
    provider = recognise(model)
    if host == "api.openai.com" and "openai" not in provider:
        raise ModelError(f"{model}: LiteLLM would ask OpenAI: set {provider.upper()}_API_BASE to the server's address")
    others = {name for owner, names in KEYS.items() if owner not in provider for name in names}
    keys = keys_in_environment()
    own = {key for name, key in keys.items() if name not in others}  # one key may be in several variables
    for name in sorted(others & keys.keys()):
        if keys[name] not in own and any(keys[name] in value for value in sent):
            instead = f"set {key_names(model)}, or unset {name}"
            raise ModelError(f"{model}: LiteLLM would send the key in {name} to {host}: {instead}")


def missing_key(model: str) -> ModelError:
    """The error for a model whose key is not in the environment."""
    return ModelError(
        f"{model} needs a key: set {key_names(model)} in the environment, "
        f"or use the model embedded/minigrid-planner, which needs neither key nor network. {retired(model)}".rstrip()
    )


def gone(model: str, said: str) -> ModelError:
    """The error for a model that the provider does not serve (404)."""
    return ModelError(
        f"{model}: the provider does not serve this model (HTTP 404). {_could_serve(model)}It said: {said}"
    )


def key_names(model: str) -> str:
    """The environment variables that may hold a model's key, as far as they are known."""
    provider = recognise(model)
    if names := KEYS.get(provider):
        return " or ".join(names)
    # LiteLLM names those that it would look into and that are not there.
    missing = load_litellm().validate_environment(model).get("missing_keys") or [f"{provider.upper()}_API_KEY"]
    return " and ".join(missing)


def suggestions(model: str, count: int = 5) -> list[str]:
    """Current vision models of the same provider: the most alike, then the cheapest."""
    provider = model.split("/", 1)[0]
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    current: dict[str, float] = {}
    for name, entry in load_litellm().model_cost.items():
        full = name if "/" in name else f"{entry.get('litellm_provider')}/{name}"
        serves = entry.get("mode") == "chat" and entry.get("supports_vision") and full.startswith(f"{provider}/")
        special = any(word in full for word in ("preview", "exp", "audio", "image", "live"))
        if serves and not special and (entry.get("deprecation_date") or "9999") > today:
            current[full] = float(entry.get("input_cost_per_token") or 0.0)
    alike = difflib.get_close_matches(model, current, n=count - 2, cutoff=0.6)
    # A price of 0 means that it is not known.
    cheap = sorted((name for name in current if name not in alike and current[name]), key=lambda name: current[name])
    return (alike + cheap)[:count]


def retired(model: str) -> str:
    """For a model that is gone, a sentence that says so and what stands nearest today; otherwise nothing."""
    nearest = _nearest(model)
    return f"{model} is retired; the nearest today is {nearest}." if nearest else ""


def _could_serve(model: str) -> str:
    found = [name for name in suggestions(model) if name not in (model, _nearest(model))]
    return f"{retired(model)} ".lstrip() + (f"Current models that could serve: {', '.join(found)}. " if found else "")


def _nearest(model: str) -> str | None:
    return next((new for old, new in RETIRED.items() if model.startswith(old)), None)
