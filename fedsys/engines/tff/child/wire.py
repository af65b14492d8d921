"""Messages between the engine and its child: named arrays, over a socket.

A message is its length (8 bytes, big-endian) and a NumPy archive of that length. Both sides use
this file, each with its own NumPy.
"""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

HEAD = struct.Struct(">Q")


class Closed(Exception):
    """The other side is gone."""


def send(channel: socket.socket, arrays: Mapping[str, Any]) -> None:
    """Sends named arrays. Raises Closed where nobody listens any more."""
    body = io.BytesIO()
    np.savez(body, **arrays)
    try:
        channel.sendall(HEAD.pack(body.tell()))
        channel.sendall(body.getbuffer())
    except (BrokenPipeError, ConnectionResetError):
        raise Closed from None


def receive(channel: socket.socket) -> dict[str, np.ndarray]:
    """The next message. Raises Closed where there will be none, TimeoutError as the socket does."""
    (length,) = HEAD.unpack(_exactly(channel, HEAD.size))
    with np.load(io.BytesIO(_exactly(channel, length)), allow_pickle=False) as archive:
        return dict(archive)


def _exactly(channel: socket.socket, length: int) -> bytearray:
    body = bytearray(length)
    view, done = memoryview(body), 0
    while done < length:
        try:
            count = channel.recv_into(view[done:])
        except ConnectionResetError:
            raise Closed from None
        if not count:
            raise Closed
        done += count
    return body
