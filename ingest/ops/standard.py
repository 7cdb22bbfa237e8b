"""Standard input, output and error, where whoever started us has closed them: `twistd ... >&-`."""

import os


def keep_standard_streams() -> None:
    """Put /dev/null in the place of each of them that is closed.

    Else the next files that are opened, of the log perhaps, would take their numbers, and get what
    a library prints.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
