"""What a process that runs somebody's query can no longer do, whatever the query is.

It can open no file but those it was given, write none, use no network, take no more memory or
time than it may, and ends with the process that started it. The kernel sees to it: landlock(7),
setrlimit(2).
"""

import ctypes
import os
import resource
import struct
import threading
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_READ_FILE = 1 << 2
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # rights that each version of Landlock knows
_NETWORK_RIGHTS = 0b11  # bind and connect over TCP, from version 4 on
_SCOPES = 0b11  # abstract Unix sockets and signals, from version 6 on

_MACHINE = ("/proc/self/cgroup", "/sys/fs/cgroup", "/sys/devices/system/cpu")

_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """End this process when the other end of its standard input is closed or has gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def limit_use(*, memory: int, seconds: float) -> None:
    """Bound what this process takes.

    Args:
        memory: bytes of address space beyond what it has now.
        seconds: of the processor, from now on.
    """
    used = os.times()
    _lower(resource.RLIMIT_AS, _address_space() + memory)
    _lower(resource.RLIMIT_CPU, int(used.user + used.system + seconds) + 1)


def forbid_writing() -> None:
    """Let this process write to no file, what it has open included; pipes are none."""
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def allow_open_files() -> None:
    """Let this process hold as many files open as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def allow_only(fds: Iterable[int]) -> bool:
    """Let this process read the files behind these descriptors, and open nothing else.

    But for what says how much memory and how many processors there are, which DuckDB asks for.
    It counts for this thread and for those that it starts from then on.

    Returns:
        False if the kernel has no Landlock (it has since 5.13, unless it is switched off). Then
        nothing is changed.
    """
    version = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    handled = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    network = _NETWORK_RIGHTS if version >= 4 else 0
    scopes = _SCOPES if version >= 6 else 0
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = struct.pack("=QQQ", handled, network, scopes)
    fd = _checked(_libc.syscall(_CREATE_RULESET, ruleset, size, 0))
    try:
        for file in fds:
            _allow(fd, file)
        for path in filter(os.path.exists, _MACHINE):
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _allow(fd, file)
            os.close(file)
        _checked(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_libc.syscall(_RESTRICT_SELF, fd, 0))
    finally:
        os.close(fd)
    return True


def _allow(ruleset: int, file: int) -> None:
    rule = struct.pack("=Qi", _READ_FILE, file)
    _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _lower(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _address_space() -> int:
    """Return the bytes of address space that this process has (proc(5), statm)."""
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123
        return int(statm.read().split()[0]) * resource.getpagesize()
