"""What LiteLLM's HTTP clients may do during a call: send it once, to one address, and read a reply of limited size."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import httpx

from lvlm2p_wrappers.client.provider_errors import MOST_BYTES, OversizedReplyError, RedirectError


class _Call:
    """What was sent during a call; and what was wrong with a reply, which LiteLLM and the providers' clients bury."""

    def __init__(self) -> None:
        self.sent: set[tuple[str, str]] = set()
        self.error: Exception | None = None
        self.is_over = False

    def options(self, request: httpx.Request) -> dict[str, Any]:
        """How a request is to be sent."""
        address = request.method, str(request.url)
        if address in self.sent:  # some clients repeat one whose connection was lost: it may be paid for already
            raise httpx.ConnectError("the connection was refused or lost", request=request)
        self.sent.add(address)
        request.headers["Accept-Encoding"] = "gzip"
        return {"stream": True, "follow_redirects": False}

    def guard(self, response: httpx.Response) -> None:
        """Refuse a redirect, and limit what will be read."""
        if response.has_redirect_location:
            self.error = RedirectError(response.status_code, response.headers["location"])
            raise self.error
        response.stream = _Limited(self, response)


class _Limited(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A reply's bytes, unpacked."""

    def __init__(self, call: _Call, response: httpx.Response) -> None:
        self._call, self._stream, self._left = call, response.stream, MOST_BYTES
        packed = response.headers.pop("content-encoding", "identity").lower()
        if packed not in ("identity", "gzip"):
            raise httpx.DecodingError(f"a reply packed with {packed!r} was not asked for")
        self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed == "gzip" else None

    def __iter__(self) -> Iterator[bytes]:
        return map(self._limited, self._stream)  # type: ignore[arg-type]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:  # type: ignore[union-attr]
            yield self._limited(chunk)

    def close(self) -> None:
        self._stream.close()  # type: ignore[union-attr]

    async def aclose(self) -> None:
        await self._stream.aclose()  # type: ignore[union-attr]

    def _limited(self, chunk: bytes) -> bytes:
        try:
            content = self._unpack.decompress(chunk, self._left + 1) if self._unpack else chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error
        self._left -= len(content)
        if self._left < 0:
            self._call.error = OversizedReplyError()
            raise self._call.error
        return content


_call: ContextVar[_Call | None] = ContextVar("call", default=None)
_send, _send_async = httpx.Client.send, httpx.AsyncClient.send


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Hold all HTTP requests of the current task to the rules of one call.

    Raises:
        RedirectError: if the provider answers with a redirect, to whatever address.
        OversizedReplyError: if its reply, unpacked, is longer than ``MOST_BYTES``.
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


def _guarded_send(
    self: httpx.Client, request: httpx.Request, *, stream: bool = False, **options: Any
) -> httpx.Response:
    if (call := _call.get()) is None or call.is_over:
        return _send(self, request, stream=stream, **options)
    response = _send(self, request, **options | call.options(request))
    try:
        call.guard(response)
        if not stream:
            response.read()
    except BaseException:
        response.close()
        raise
    return response


async def _guarded_send_async(
    self: httpx.AsyncClient, request: httpx.Request, *, stream: bool = False, **options: Any
) -> httpx.Response:
    if (call := _call.get()) is None or call.is_over:
        return await _send_async(self, request, stream=stream, **options)
    response = await _send_async(self, request, **options | call.options(request))
    try:
        call.guard(response)
        if not stream:
            await response.aread()
    except BaseException:
        await response.aclose()
        raise
    return response


# All of LiteLLM's clients use httpx, and have no setting for all of these rules. Outside of calls nothing changes.
httpx.Client.send, httpx.AsyncClient.send = _guarded_send, _guarded_send_async  # type: ignore[method-assign]
