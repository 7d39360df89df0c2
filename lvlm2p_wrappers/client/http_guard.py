"""What LiteLLM's HTTP clients may do during a call: send it once, to one address, and read a reply of limited size."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx

from lvlm2p_wrappers.client.provider_errors import GuardError

MOST_BYTES = 32 * 2**20
"""The longest reply that is read, unpacked."""


@dataclass
class _Call:
    """The requests of a call; and why a reply was refused, which LiteLLM and the providers' clients bury."""

    sent: set[tuple[str, str]] = field(default_factory=set)
    error: GuardError | None = None
    is_over: bool = False


_call: ContextVar[_Call | None] = ContextVar("call", default=None)
_send = httpx.AsyncClient.send


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Hold all HTTP requests of the current task to the rules of one call.

    Raises:
        GuardError: if the provider answers with a redirect, to whatever address, or with more than ``MOST_BYTES``.
    """
    token = _call.set(call := _Call())
    try:
        yield
    except Exception as error:
        if call.error is not None:
            raise call.error from error
        raise
    finally:
        call.is_over = True  # LiteLLM's logging goes on in tasks of its own
        _call.reset(token)


async def _guarded_send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    if (call := _call.get()) is None or call.is_over:
        return await _send(self, request, **options)
    address = request.method, str(request.url)
    if address in call.sent:  # some clients repeat one whose connection was lost: it may be paid for already
        raise httpx.ConnectError("the connection was refused or lost", request=request)
    call.sent.add(address)
    request.headers["Accept-Encoding"] = "gzip"
    response = await _send(self, request, **options | {"stream": True, "follow_redirects": False})
    try:
        return await _whole(response)
    except GuardError as error:
        call.error = error
        raise
    finally:
        await response.aclose()


# All of LiteLLM's clients use httpx, and have no setting for all of these rules. Outside of calls nothing changes.
httpx.AsyncClient.send = _guarded_send  # type: ignore[method-assign]


async def _whole(response: httpx.Response) -> httpx.Response:
    """The response with its body, unpacked."""
    headers = response.headers.copy()
    if response.has_redirect_location:
        raise GuardError(
            f"it redirects to {headers['location'][:200]!r}, and no key is sent where it was not meant to go; "
            "if that address is right, give it as api_base",
            response.status_code,
        )
    packed = headers.pop("content-encoding", "identity").lower()
    if packed not in ("identity", "gzip"):
        raise httpx.DecodingError(f"a reply packed with {packed!r} was not asked for")
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed == "gzip" else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        try:
            body += unpack.decompress(chunk, MOST_BYTES + 1 - len(body)) if unpack else chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error
        if len(body) > MOST_BYTES:
            raise GuardError(f"the reply is longer than {MOST_BYTES // 2**20} MB")
    headers.pop("transfer-encoding", None)
    headers["content-length"] = str(len(body))
    whole = httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)
    whole.elapsed = response.elapsed
    return whole
