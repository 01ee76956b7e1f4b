"""The network namespaces of a node's pods, and entering them: the only code that does.

A namespace is what the container runtime (containerd, CRI-O) has mounted in /run/netns when it made the pod. A pod
cannot put anything there, and pods on the host's network have nothing there. That a namespace is not the host's is
checked nevertheless, by the node's own address. setns(2) needs CAP_SYS_ADMIN; no other process is touched
(docs/adr/0130).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from mesh.errors import Busy, Forbidden, MissingPrerequisite, NotFound

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def names(folder: Path) -> list[str]:
    """What is in `folder`; MissingPrerequisite when it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError as error:
        raise MissingPrerequisite(
            f"the network namespaces of the pods cannot be seen: {folder}: {error.strerror}",
            hint="mount the folder in which the container runtime keeps them, see --namespaces",
        ) from None


@contextlib.contextmanager
def inside(namespace: Path, host_address: str) -> Iterator[int]:
    """The calling thread is in `namespace` for the body, alone of all agents; gives its descriptor.

    NotFound when there is no network namespace (any more) or it is the caller's own, Forbidden when it is the host's,
    whose address is `host_address`, Busy when another agent is there, MissingPrerequisite without CAP_SYS_ADMIN.
    """
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = _open(namespace)
        try:
            if os.path.sameopenfile(home, there):
                raise NotFound(f"{namespace} is the network namespace of this agent itself")
            _setns(there)
            try:
                if is_local(host_address):
                    raise Forbidden(f"{namespace} has the node's address {host_address}, so it is the host's network")
                _lock(there)
                yield there
            finally:
                _return(home)
        finally:
            os.close(there)
    finally:
        os.close(home)


@contextlib.contextmanager
def new_namespace() -> Iterator[None]:
    """The calling thread is in a new network namespace for the body; it goes when the body ends."""
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            raise _no_right("made")
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


def is_local(address: str) -> bool:
    """Whether `address` is one of this network namespace's own.

    One without any address yet lets every address be bound, because it has no table to look it up in (Linux,
    inet_addr_type); but it has no way to it either.
    """
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            probe.connect((address, 9))  # sends nothing
    except OSError:
        return False
    return True


def _open(namespace: Path) -> int:
    try:
        found = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise NotFound(f"{namespace}: {error.strerror}") from None
    try:
        if fcntl.ioctl(found, _NS_GET_NSTYPE) == _CLONE_NEWNET:
            return found
    except OSError:
        pass  # a plain file: not mounted yet, or no more
    os.close(found)
    raise NotFound(f"{namespace} is no network namespace")


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise _no_right("entered")


def _lock(namespace: int) -> None:
    """An agent that is being replaced may still be at work. Never waits: the pod itself could hold this lock too."""
    try:
        fcntl.flock(namespace, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("something else holds the lock of this network namespace") from None


def _no_right(what: str) -> MissingPrerequisite:
    return MissingPrerequisite(
        f"a network namespace cannot be {what}: {os.strerror(ctypes.get_errno())}",
        hint="the node agent runs as root with the capabilities SYS_ADMIN, NET_ADMIN and NET_RAW",
    )


def _return(home: int) -> None:
    """Back, or not at all: a thread in the wrong place must not do the next thing there."""
    if _libc.setns(home, _CLONE_NEWNET):
        os.write(2, f"heddle-node: {threading.current_thread().name} cannot leave a pod's network\n".encode())
        os._exit(70)
