"""Runs a command and sees to it that nothing of it outlives its end, or the end of who asked.

    keeper.py ENDED REMOVED DESCRIPTORS NETWORK COMMAND...

TensorFlow Federated starts a `worker_binary` that goes on after its own process has died. So the
keeper leads a session of its own, in which all of them are. It waits for the command to end or for
its parent to be gone, and then kills the whole group, itself included; whoever wants the command's
exit code reads it in the file ENDED. The folder REMOVED goes where the parent is gone, for nobody
else will remove it. DESCRIPTORS ("5,6", may be empty) are handed on to the command.
NETWORK is "all" or "loopback": the worker listens on every address of the machine, and does what
anybody tells it, so it gets a network of its own wherever the system lets us make one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

WATCH = 0.2
"""Seconds between two looks at the parent's pipe."""

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
SET_FLAGS, UP = 0x8914, 1
"""Numbers of Linux: of what `unshare` is to make anew, and of how an interface is turned on."""


def keep(ended: str, removed: str, descriptors: Sequence[int], command: Sequence[str]) -> NoReturn:
    """Runs the command; ends the group with it, or with the parent.

    As in `fedsys.supervision`, standard input is a pipe that closes when the parent is gone. Here
    it is looked at, since this file runs without packages, of which fedsys is one.
    """
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)
    for descriptor in descriptors:
        os.close(descriptor)  # so that the other side hears when the command ends
    while True:
        try:
            code = child.wait(WATCH)
            break
        except subprocess.TimeoutExpired:
            if select.select([0], [], [], 0)[0]:
                shutil.rmtree(removed, ignore_errors=True)
                end()
    with open(ended, "w") as file:
        file.write(str(code))
    end()


def confine() -> bool:
    """Leaves this process, and all it starts, no network but loopback; whether that could be done.

    Tried in another process first: a system may allow the first half, and not the second.
    """
    probe = os.fork()
    if probe == 0:
        try:
            _to_loopback()
        except (OSError, AttributeError):
            os._exit(1)
        os._exit(0)
    if os.waitpid(probe, 0)[1]:
        return False
    _to_loopback()
    return True


def _to_loopback() -> None:
    """Moves this process to a new network. OSError where it may not, AttributeError elsewhere than
    on Linux."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK):
        raise OSError
    rights = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    for name, text in rights.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", UP))


def end() -> NoReturn:
    """Ends the group, this process included."""
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # not reached


if __name__ == "__main__":
    ended, removed, descriptors, network, *command = sys.argv[1:]
    if network == "loopback" and not confine():
        print("keeper: no network of its own is to be had: the worker's port is open", flush=True)
    keep(ended, removed, [int(d) for d in descriptors.split(",") if d], command)
