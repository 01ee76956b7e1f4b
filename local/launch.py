"""Starts one process in a container's namespaces: a container's first process, or a further one (`exec`).

Run as `python -S -P -m local.launch REPORT_FD STDIN_FD`, with the order (a JSON object made by `local.container`) on
standard input. Standard output and error become the process's own. The answer, one JSON object on REPORT_FD, is
`{"pid": <as the engine sees it>}` once the program runs, or `{"error": "..."}`. The launcher then ends, and the process
becomes a child of the engine, which reaps it. Standard library only, for it runs once a container.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

from local import linux
from local.rootmount import build_root

_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC


def main() -> int:
    """Carry out the order; 0 if the program was started."""
    report, stdin = int(sys.argv[1]), int(sys.argv[2])
    order = json.loads(sys.stdin.buffer.read())
    os.set_inheritable(report, False)  # or the program would hold it open, and the engine wait for its end
    os.dup2(stdin, 0)
    os.close(stdin)
    try:
        if order["join"]:
            _join(order["join"])
        else:
            _make(order)
        answer = _fork_and_exec(order)
    except OSError as error:
        answer = {"error": _sentence(error)}
    os.write(report, json.dumps(answer).encode())
    return 0 if "pid" in answer else 1


def _join(pid: int) -> None:
    """All namespaces of a running container, by its first process."""
    handle = os.pidfd_open(pid)
    linux.setns(handle, _NAMESPACES)
    os.close(handle)


def _make(order: dict[str, Any]) -> None:
    """The pod's network, host name and IPC; a new mount and PID namespace."""
    for path, kind in order["namespaces"]:
        handle = os.open(path, os.O_RDONLY)
        linux.setns(handle, kind)
        os.close(handle)
    if order["hostname"]:
        socket.sethostname(order["hostname"])
    for name, value in order["sysctls"].items():
        with open(f"/proc/sys/{name.replace('.', '/')}", "w") as setting:
            setting.write(value)
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)


def _fork_and_exec(order: dict[str, Any]) -> dict[str, Any]:
    """The answer, once the child has executed its program (its end of the pipe closes) or said why it could not."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        try:
            _become(order)
        except BaseException as error:  # whatever it is, it must reach the engine and must not run further here
            os.write(tell, _sentence(error).encode())
        os._exit(127)
    os.close(tell)
    problem = b""
    while chunk := os.read(told, 65536):
        problem += chunk
    if problem:
        os.waitpid(child, 0)
        return {"error": problem.decode()}
    return {"pid": child}


def _become(order: dict[str, Any]) -> None:
    """In the new process: root, session, credentials, program. Does not return."""
    os.setsid()
    if order["tty"]:
        import fcntl
        import termios

        with contextlib.suppress(OSError):  # it may be the controlling terminal of the caller's session already
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if not order["join"]:
        build_root(order)
    os.umask(0o022)
    # What is ignored is inherited: SIGPIPE of Python, SIGHUP of nohup, SIGINT of a shell's background jobs.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    directory = order["cwd"]
    if not order["join"]:
        os.makedirs(directory, exist_ok=True)  # as container runtimes do for a working directory that is missing
    _drop_privileges(order)
    os.chdir(directory)
    try:
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), order["argv"][0]) from error


def _drop_privileges(order: dict[str, Any]) -> None:
    """User, groups, capabilities and no_new_privs, in the order in which each is still allowed."""
    uid, gid = order["uid"], order["gid"]
    if not order["join"]:
        for stream in (1, 2):  # the engine's own pipe: so that the user may open /dev/stdout, as container runtimes do
            os.fchown(stream, uid, -1)
    keep = frozenset(order["capabilities"])
    linux.limit_capabilities(keep)
    os.setgroups(order["groups"])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    linux.set_capabilities(keep if uid == 0 else frozenset())
    if order["no_new_privs"]:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
