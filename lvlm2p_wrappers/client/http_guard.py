"""What LiteLLM's HTTP clients may do during a call: send it once, to one address, and read a reply of limited size."""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 32 * 2**20
"""The longest reply that is read, unpacked."""


class RedirectError(Exception):
    """The provider's answer sends the request elsewhere, and with it the key and the picture."""

    def __init__(self, status_code: int, location: str) -> None:
        super().__init__(
            f"it redirects to {location[:200]!r}, and no key is sent where it was not meant to go; "
            "if that address is right, give it as api_base"
        )
        self.status_code = status_code


class OversizedReplyError(Exception):
    """The reply does not end within the limit."""

    def __init__(self) -> None:
        super().__init__(f"the reply is longer than {MOST_BYTES // 2**20} MB")


@dataclass
class _Call:
    urls: set[str] = field(default_factory=set)
    error: Exception | None = None
    is_over: bool = False


_call: ContextVar[_Call | None] = ContextVar("call", default=None)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Hold all HTTP requests of the current task to the rules of one call.

    Raises:
        RedirectError: if the provider answers with a redirect, to whatever address.
        OversizedReplyError: if its reply, unpacked, is longer than ``MOST_BYTES``.
    """
    _guard_httpx()
    call = _Call()
    token = _call.set(call)
    try:
        yield
    except Exception as error:
        if call.error is not None:  # LiteLLM and the providers' clients bury it
            raise call.error from error
        raise
    finally:
        call.is_over = True  # LiteLLM's logging goes on in tasks of its own
        _call.reset(token)


@functools.cache
def _guard_httpx() -> None:
    """Put the guard into httpx, which all of LiteLLM's clients use: none of them has a setting for all of these rules.

    Outside of calls nothing changes.
    """
    import httpx

    send = httpx.AsyncClient.send

    async def guarded_send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        call = _call.get()
        if call is None or call.is_over:
            return await send(self, request, **options)
        url = f"{request.method} {request.url}"
        if url in call.urls:  # some clients send a request again whose connection was lost: it may be paid for already
            raise httpx.ConnectError("the connection was refused or lost", request=request)
        call.urls.add(url)
        request.headers["Accept-Encoding"] = "gzip"
        response = await send(self, request, **{**options, "stream": True, "follow_redirects": False})
        try:
            return await _read(response)
        except (RedirectError, OversizedReplyError) as error:
            call.error = error
            raise
        finally:
            await response.aclose()

    httpx.AsyncClient.send = guarded_send  # type: ignore[method-assign]


async def _read(response: httpx.Response) -> httpx.Response:
    """The whole response, unpacked."""
    from httpx import DecodingError, Response

    if response.has_redirect_location:
        raise RedirectError(response.status_code, response.headers["location"])
    packed = response.headers.get("content-encoding", "identity").lower()
    if packed not in ("identity", "gzip"):
        raise DecodingError(f"a reply packed with {packed!r} was not asked for")
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed == "gzip" else None
    content = bytearray()
    async for chunk in response.aiter_raw():
        try:
            content += unpack.decompress(chunk, MOST_BYTES + 1 - len(content)) if unpack else chunk
        except zlib.error as error:
            raise DecodingError(str(error)) from error
        if len(content) > MOST_BYTES:
            raise OversizedReplyError
    of_the_way = {"content-encoding", "content-length", "transfer-encoding"}
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in of_the_way]
    whole = Response(
        response.status_code,
        headers=headers,
        content=bytes(content),
        request=response.request,
        extensions=response.extensions,
    )
    whole.elapsed = response.elapsed
    return whole
