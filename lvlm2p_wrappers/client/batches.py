"""Batches of requests, which some providers answer within a day, at half the price; through LiteLLM."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.client.litellm_backend import Request, guard, reply_of, response_format, wire_messages
from lvlm2p_wrappers.client.litellm_loader import load_litellm
from lvlm2p_wrappers.client.provider_errors import FailedCallError, Traffic, classify
from lvlm2p_wrappers.errors import ModelError
from lvlm2p_wrappers.records import Reply
from lvlm2p_wrappers.redaction import short

PROVIDERS = ("azure", "bedrock", "hosted_vllm", "mistral", "openai", "vertex_ai", "xai")
"""The providers whose batches LiteLLM can make and collect."""

DISCOUNT = 0.5
"""What a call in a batch costs, relative to a single one."""

MOST_REQUESTS, MOST_BYTES = 10_000, 90 * 2**20
"""The most requests of a batch, and bytes of its file: the results are read whole, and providers have limits, too."""

_TIMEOUT_S = 600.0
_OVER = {"completed", "failed", "expired", "cancelled"}
_TOKEN = "lvlm2p"  # of a batch's metadata

T = TypeVar("T")


class BatchState(NamedTuple):
    """How far a batch is, by the provider's account.

    Attributes:
        status: the provider's word.
        is_over: whether nothing more is going to come.
        answered: how many requests are answered.
        failed: how many have failed.
        files: the names of the files with the results.
        problem: why the provider refused all of it; ``""`` if it did not.
    """

    status: str
    is_over: bool
    answered: int
    failed: int
    files: tuple[str, ...]
    problem: str


class BatchResult(NamedTuple):
    """What came of one request: a reply, or what was wrong and the HTTP status."""

    reply: Reply | None
    problem: str = ""
    status: int | None = None


def has_batches(model: str) -> bool:
    """Whether LiteLLM can make batches for a model's provider."""
    return catalogue.recognise(model) in PROVIDERS


def check(model: str) -> None:
    """Find what would keep a batch from being made.

    Raises:
        ModelError: if the provider has no batches that LiteLLM can make, or its key is missing.
    """
    if not has_batches(model):
        provider = catalogue.recognise(model)
        raise ModelError(
            f"{model}: LiteLLM makes no batches for {provider}. It does for {', '.join(PROVIDERS)}; "
            "leave out --batch to ask one question at a time"
        )
    catalogue.check(model, None)


def size_of(request: Request) -> int:
    """Bytes that a request takes in a batch's file."""
    return len(_line(request))


class BatchClient:
    """Submits batches of requests to one model's provider, and collects them.

    Args:
        model: the LiteLLM model string.

    Raises:
        ModelError: if its provider has no batches, or its key is missing.
    """

    def __init__(self, model: str) -> None:
        check(model)
        self.model = model
        self._provider = catalogue.recognise(model)

    def submit(self, requests: Sequence[Request], token: str) -> str:
        """Upload requests and submit them as one batch.

        Args:
            requests: of different keys, by which their results are told apart.
            token: goes with the batch, so that :meth:`find` finds it.

        Returns:
            The provider's name for the batch.

        Raises:
            ModelError: if the user has to mend something.
            TransportError: if it may have been submitted all the same, or not.
        """
        litellm, content = load_litellm(), b"".join(map(_line, requests))
        # A file that is uploaded twice costs nothing; a batch that is submitted twice does.
        file = self._repeated(
            lambda: self._call(litellm.create_file, file=(f"{token}.jsonl", content), purpose="batch")
        )
        options = {"completion_window": "24h", "endpoint": "/v1/chat/completions"}
        try:
            batch = self._call(litellm.create_batch, **options, input_file_id=file.id, metadata={_TOKEN: token})
        except FailedCallError as failed:
            raise failed.error from None
        return str(batch.id)

    def find(self, token: str) -> str | None:
        """The provider's name for a batch that was submitted with a token; None where there is none, or no list."""
        litellm = load_litellm()
        if self._provider not in litellm.types.utils.LIST_BATCHES_SUPPORTED_PROVIDERS:
            return None
        listed = self._repeated(lambda: self._call(litellm.list_batches, limit=100))
        found = (batch for batch in listed.data if (_get(batch, "metadata") or {}).get(_TOKEN) == token)
        return next((str(_get(batch, "id")) for batch in found), None)

    def state(self, batch_id: str) -> BatchState:
        """How far a batch is.

        Raises:
            ModelError: if the provider does not know it, or refuses the key.
            TransportError: if it does not answer, after some retries.
        """
        litellm = load_litellm()
        batch = self._repeated(lambda: self._call(litellm.retrieve_batch, batch_id=batch_id))
        counts = _get(batch, "request_counts")
        errors = _get(_get(batch, "errors"), "data") or []
        files = (_get(batch, "output_file_id"), _get(batch, "error_file_id"))
        return BatchState(
            status=short(str(batch.status)),
            is_over=batch.status in _OVER,
            answered=int(_get(counts, "completed") or 0),
            failed=int(_get(counts, "failed") or 0),
            files=tuple(str(name) for name in files if name),
            problem=short("; ".join(str(_get(error, "message")) for error in errors[:3])),
        )

    def results(self, state: BatchState, requests: Mapping[str, Request]) -> Iterator[tuple[str, BatchResult]]:
        """What came of the requests of a batch; of some there may be nothing, of others several results.

        Args:
            state: of a batch that is over.
            requests: those of the batch, by their keys; results of others are passed over.

        Yields:
            The key of a request, and its result.
        """
        litellm = load_litellm()
        for name in state.files:
            content = self._repeated(lambda name=name: self._call(litellm.file_content, file_id=name))  # type: ignore[misc]
            for line in bytes(content.content).splitlines():
                try:
                    row = json.loads(line)
                    request = requests[row["custom_id"]]
                except (ValueError, TypeError, LookupError, RecursionError):
                    continue  # whose it is cannot be told: that request has no result
                yield request.key, _result(row, request)

    def _call(self, function: Callable[..., T], **options: Any) -> T:
        """One HTTP request, of which a redirect, another's key and a reply without an end are refused."""
        if self._provider in ("openai", "hosted_vllm"):  # LiteLLM would send OpenAI's key to vLLM's server
            name = self._provider.upper()
            options["api_base"] = os.environ.get(f"{name}_API_BASE") or "https://api.openai.com/v1"
            options["api_key"] = os.environ.get(f"{name}_API_KEY") or "none"
        traffic = Traffic()
        try:
            with guard(self.model) as traffic:
                return function(custom_llm_provider=self._provider, timeout=_TIMEOUT_S, max_retries=0, **options)
        except Exception as error:
            raise classify(error, self.model, _TIMEOUT_S, traffic) from error

    def _repeated(self, call: Callable[[], T]) -> T:
        """Make a request that changes nothing, again after faults that may pass."""
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, FailedCallError) and error.retry),
            stop=stop_after_attempt(5),
            wait=wait_random_exponential(0.5, max=30),
            reraise=True,
        )
        try:
            return retrying(call)
        except FailedCallError as failed:
            raise failed.error from None


def _line(request: Request) -> bytes:
    """A request as a line of a batch's file, in OpenAI's format, of which LiteLLM makes the other providers'."""
    litellm = load_litellm()
    name, provider, *_ = litellm.get_llm_provider(request.model)
    speaks_openai = provider in ("azure", "hosted_vllm", "openai", "xai")
    options = litellm.utils.get_optional_params(
        model=name,
        custom_llm_provider=provider if speaks_openai else "openai",
        drop_params=True,
        response_format=response_format(request),
        **request.sampling,
    )
    options |= options.pop("extra_body", None) or {}
    options.pop("stream", None)
    body = {"model": name, "messages": wire_messages(request), **options}
    row = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(row).encode() + b"\n"


def _result(row: dict[str, Any], request: Request) -> BatchResult:
    response = row.get("response") or {}
    status, body = response.get("status_code"), response.get("body")
    if row.get("error") or status != 200 or not isinstance(body, dict):
        told = row.get("error") or (body or {}).get("error") or body or "no reply"
        words = told.get("message", told) if isinstance(told, dict) else told
        code = status if isinstance(status, int) else None
        return BatchResult(None, f"failed in its batch: {short(str(words))}", code)
    try:
        reply = reply_of(load_litellm().ModelResponse(**body), request, 0.0)
    except Exception as error:  # noqa: BLE001 -- a body may be anything, and LiteLLM's reading of it may fail anyhow
        return BatchResult(None, f"the answer could not be read: {short(str(error))}", 200)
    cost = None if reply.cost_usd is None else reply.cost_usd * DISCOUNT
    return BatchResult(dataclasses.replace(reply, cost_usd=cost))


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)
