"""What LiteLLM's HTTP clients may do during a call: send it once, to one address, and read a reply of limited size."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx

from lvlm2p_wrappers.client.provider_errors import GuardError, Traffic
from lvlm2p_wrappers.errors import ModelError

MOST_BYTES = 32 * 2**20
"""The longest reply that is read, unpacked."""


@dataclass
class _Call:
    """The traffic of a call; and what was refused, which LiteLLM and the providers' clients bury."""

    check: Callable[[httpx.Request], None]
    traffic: Traffic
    error: Exception | None = None
    is_over: bool = False

    @contextlib.contextmanager
    def guard(self, request: httpx.Request) -> Iterator[None]:
        """Refuse a request that must not be sent, and note what is refused in the block."""
        try:
            self.check(request)
            address = request.method, str(request.url)
            if address in self.traffic.requests:  # some clients repeat what was lost: it may be paid for already
                raise httpx.ConnectError("the connection was refused or lost", request=request)
            self.traffic.requests.add(address)
            request.headers["Accept-Encoding"] = "gzip"
            yield
        except (GuardError, ModelError) as error:
            self.error = error
            raise

    def received(self, response: httpx.Response) -> httpx.Response:
        """Note the status of a response that is there as a whole."""
        self.traffic.status = response.status_code
        return response


_call: ContextVar[_Call | None] = ContextVar("call", default=None)
_send, _send_async = httpx.Client.send, httpx.AsyncClient.send
_OPTIONS = {"stream": True, "follow_redirects": False}


@contextlib.contextmanager
def guarded(check: Callable[[httpx.Request], None]) -> Iterator[Traffic]:
    """Hold all HTTP requests of the current task to the rules of one call.

    Args:
        check: raises a ``ModelError`` for a request that must not be sent.

    Yields:
        What was sent, and what came back.

    Raises:
        ModelError: that of ``check``.
        GuardError: if the provider answers with a redirect, to whatever address, or with more than ``MOST_BYTES``.
    """
    token = _call.set(call := _Call(check, Traffic()))
    try:
        yield call.traffic
    except Exception as error:
        if call.error is not None:
            raise call.error from error
        raise
    finally:
        call.is_over = True  # LiteLLM's logging goes on in tasks of its own
        _call.reset(token)


def _guarded_send(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
    if (call := _call.get()) is None or call.is_over:
        return _send(self, request, **options)
    with call.guard(request), contextlib.closing(_send(self, request, **options | _OPTIONS)) as response:
        body = _Body(response)
        for chunk in response.iter_raw():
            body.add(chunk)
        return call.received(body.response())


async def _guarded_send_async(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    if (call := _call.get()) is None or call.is_over:
        return await _send_async(self, request, **options)
    with call.guard(request):
        async with contextlib.aclosing(await _send_async(self, request, **options | _OPTIONS)) as response:
            body = _Body(response)
            async for chunk in response.aiter_raw():
                body.add(chunk)
            return call.received(body.response())


# All of LiteLLM's clients use httpx, and have no setting for all of these rules. Outside of calls nothing changes.
httpx.Client.send, httpx.AsyncClient.send = _guarded_send, _guarded_send_async  # type: ignore[method-assign]


class _Body:
    """The body of a response, unpacked as it arrives.

    Raises:
        GuardError: if the response is a redirect, or its body is too long.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._of, self._headers, self._content = response, response.headers.copy(), bytearray()
        if response.has_redirect_location:
            raise GuardError(
                f"it redirects to {self._headers['location'][:200]!r}, and no key is sent where it was not meant to "
                "go; if that address is right, give it as api_base",
                response.status_code,
            )
        packed = self._headers.pop("content-encoding", "identity").lower()
        if packed not in ("identity", "gzip"):
            raise httpx.DecodingError(f"a reply packed with {packed!r} was not asked for")
        self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed == "gzip" else None

    def add(self, chunk: bytes) -> None:
        """Take what has arrived."""
        room = MOST_BYTES + 1 - len(self._content)
        try:
            self._content += self._unpack.decompress(chunk, room) if self._unpack else chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error
        if len(self._content) > MOST_BYTES:
            raise GuardError(f"the reply is longer than {MOST_BYTES // 2**20} MB")

    def response(self) -> httpx.Response:
        """The whole response."""
        self._headers.pop("transfer-encoding", None)
        self._headers["content-length"] = str(len(self._content))
        content, status = bytes(self._content), self._of.status_code
        whole = httpx.Response(status, headers=self._headers, content=content, request=self._of.request)
        whole.elapsed = self._of.elapsed
        return whole
