"""Sending replies whole, and the ways in which connections fail instead."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
import zlib

from aiohttp import web

from .exchange import Exchange

HTML_PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Captive portal</h1></body></html>"
PIECES = 20


async def send(request: web.Request, exchange: Exchange, response: web.Response) -> web.StreamResponse:
    """Send a whole reply."""
    try:
        await response.prepare(request)
        await response.write_eof()
    except (ConnectionError, asyncio.CancelledError):
        exchange.reopen()
        raise
    return response


async def break_connection(
    how: str, request: web.Request, exchange: Exchange, content: bytes, answer: str, drip: float
) -> web.StreamResponse:
    """Play one of the faults of kind ``"socket"``.

    Args:
        how: the fault's name.
        request: the request to be answered, or not.
        exchange: its entry in the log.
        content: the body of what would have been a good reply.
        answer: the model's text in that body.
        drip: seconds over which a dripping reply is spread.
    """
    if how in ("html", "gzip_bomb"):
        reply = _instead(how)
        exchange.close(reply.status, HTML_PAGE if how == "html" else b"")
        return await send(request, exchange, reply)
    if how == "time_out":
        await asyncio.Event().wait()  # until the client leaves, which cancels this
    if how == "reset":
        return _reset(request)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if how in ("endless_drip", "endless_body"):
        await response.prepare(request)
        while True:  # blanks before a JSON value are allowed: no byte of this reply is wrong, it just never ends
            await response.write(b" " if how == "endless_drip" else b" " * 2**20)
            await asyncio.sleep(drip / PIECES if how == "endless_drip" else 0)
    response.content_length = len(content)
    await response.prepare(request)
    if how == "dropped_mid_body":
        await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.close()
        return response
    size = -(-len(content) // PIECES)
    for start in range(0, len(content), size):
        await asyncio.sleep(drip / PIECES)
        if start + size >= len(content):
            exchange.close(200, content, answer)
        await response.write(content[start : start + size])
    await response.write_eof()
    return response


def _instead(how: str) -> web.Response:
    """A reply that is none of the model's."""
    if how == "html":
        return web.Response(body=HTML_PAGE, content_type="text/html")
    return web.Response(body=_bomb(), headers={"Content-Encoding": "gzip"}, content_type="application/json")


@functools.cache
def _bomb() -> bytes:
    """300 MB of blanks."""
    pack = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    return b"".join(pack.compress(b" " * 2**20) for _ in range(300)) + pack.flush()


def _reset(request: web.Request) -> web.StreamResponse:
    """Close the connection without a byte, in the way that the client's system reports as a reset."""
    assert request.transport is not None
    at_once = struct.pack("ii", 1, 0)
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    request.transport.abort()
    return web.StreamResponse()
