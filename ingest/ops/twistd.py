"""What twistd does on its own: the files that it writes, and how wide its help is."""

import os
from pathlib import Path
from typing import Any, Final

from twisted.python import usage

LOG_FILE: Final = "twistd.log"  # in the background, unless `twistd --logfile` says otherwise
_PID_FILE: Final = "twistd.pid"  # unless `twistd --pidfile` does


def settle_files(twistd: usage.Options | None) -> None:
    """Let twistd write no pid file in the foreground, and find out whether it can write its files.

    In the foreground whoever started us knows our pid. A file would only be in the way: in a
    container, where each start has the same pid, a stale one passes for a running twistd.

    Args:
        twistd: its options; None where another program parses ours.

    Raises:
        UsageError: it can't write a file, which it would say by a traceback.
    """
    if twistd is None:
        return
    in_background = not twistd["nodaemon"]
    if not in_background and twistd["pidfile"] == _PID_FILE:
        twistd["pidfile"] = ""
    if not Path(twistd["rundir"]).is_dir():
        raise usage.UsageError(f"twistd's --rundir {twistd['rundir']}: there is no such folder")
    _check(twistd, "logfile", twistd["logfile"] or (LOG_FILE if in_background else "-"))
    _check(twistd, "pidfile", twistd["pidfile"] or "-")


def help_width(width: int | None = None) -> int:
    """Return how many columns twistd's help may take: it can't be written in less than 40.

    Args:
        width: how many are asked for; None for those of the terminal.
    """
    columns = os.environ.get("COLUMNS", "")
    return max(40, width or (int(columns) if columns.isdecimal() else 80))


def _check(twistd: Any, option: str, name: str) -> None:
    if name == "-" or (option == "logfile" and (twistd["syslog"] or twistd["logger"])):
        return
    file = Path(name).absolute()
    if not file.parent.is_dir():
        reason = f"there is no folder {file.parent}"
    elif not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK):
        return
    else:
        reason = "it can't be written"
    in_foreground = "" if twistd["nodaemon"] else ", or run in the foreground by: twistd -n"
    raise usage.UsageError(
        f"twistd's --{option} {file}: {reason}; name another file, in front of the"
        f" subcommand{in_foreground}"
    )
