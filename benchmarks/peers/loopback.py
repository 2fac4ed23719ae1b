"""A network of this process's own, with nothing in it but a loopback device.

TensorFlow's gRPC server listens on every address of the machine and asks nobody for a token, whatever TF_CONFIG says.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
"""From linux/sched.h, linux/sockios.h and linux/if.h."""


def keep_to_loopback() -> None:
    """Cuts this process, and all that it starts, off from every other network; call it before a thread is started.

    Where the machine allows nobody a network of their own it says so, and goes on.
    """
    try:
        try:
            _unshare(CLONE_NEWNET)
        except PermissionError:
            user, group = os.geteuid(), os.getegid()
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        _raise_device(b"lo")
    except OSError as error:
        print(f"TensorFlow's port is open to other machines ({error})", file=sys.stderr)


def _unshare(flags: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(flags):
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.EACCES):
            raise PermissionError(number, os.strerror(number))
        raise OSError(number, os.strerror(number))


def _raise_device(name: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", name, IFF_UP))
