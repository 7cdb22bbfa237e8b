"""`twistd ingest`: its options, and the service that they make."""

# ruff: noqa: E402 - signals may come while the rest is imported, and must be safe from now on
from ingest.service.hangup import HANGUP

HANGUP.install()


import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IService
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.logfile import LogFile

from ingest.listener.protocols import DEFAULT, protocols
from ingest.ops.jsonlog import json_observer
from ingest.ops.standard import keep_standard_streams
from ingest.ops.twistd import LOG_FILE, help_width, settle_files
from ingest.service.reading import (
    did_you_mean,
    options_with_files,
    parse_listen,
    read_settings,
)
from ingest.service.settings import (
    DEFAULT_LISTEN,
    PARSED,
    Listen,
    Settings,
    SettingsError,
    option_name,
)

_UNKNOWN = re.compile(r"option (--\S+) not recognized")
_EXAMPLES = """\
Examples of options:
    --listen tcp:7650 --listen ssl:7651:privateKey=key.pem:certKey=cert.pem
    --listen syslog=tcp:514 --listen-option networks=10.0.0.0/8
    --data /var/lib/ingest --keep-days 90 --compress zstd
"""


class Options(usage.Options):
    """The command line of `twistd ingest`; what is missing comes from the file or the defaults."""

    synopsis = "[options]"
    longdesc = (
        "Listen for devices, authenticate them, and append their frames to"
        " <data>/log/ingest.log, one line of JSON each. Sizes take units (64KiB, 10GB),"
        " durations too (10s, 5m, 1h, 1d). SIGHUP reopens the log and reads the configuration"
        " again; SIGTERM stops after all frames are on disk and acknowledged."
    )
    optParameters = [  # noqa: RUF012 - as usage.Options has it
        ["config", "c", None, "a TOML file of the same names; the command line wins"],
        *(
            [
                option_name(setting.name),
                None,
                None,
                f"{setting.metadata['help']} [default: {setting.metadata['default']}]",
            ]
            for setting in PARSED
        ),
    ]
    optFlags = [  # noqa: RUF012
        [
            "allow-plaintext-auth",
            None,
            "let devices send their token in clear from other hosts too",
        ],
    ]

    def __init__(self) -> None:
        keep_standard_streams()
        super().__init__()
        self.listen: list[Listen] = []
        self.make_observer: Callable[[], ILogObserver] | None = None

    @property
    def is_daemonized(self) -> bool:
        """Whether twistd goes into the background, and waits there for word of the start."""
        return self.parent is not None and not self.parent["nodaemon"]

    def getUsage(self, width: int | None = None) -> str:
        """Return the help, with the protocols that are installed."""
        listed = "".join(
            f"    {maker.name}: {maker.summary}\n" for _, maker in sorted(protocols().items())
        )
        return (
            f"{super().getUsage(help_width(width))}\nProtocols for --listen:\n{listed}\n{_EXAMPLES}"
        )

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"ingest {version('ingest')}")
        raise SystemExit(0)

    def parseArgs(self, *surplus: str) -> None:
        """Take options only."""
        if surplus:
            raise usage.UsageError(f"{surplus[0]!r} is no option, and belongs to none before it")

    def opt_listen(self, endpoint: str) -> None:
        self.listen.append(parse_listen(endpoint))

    opt_listen.__doc__ = (
        "where to listen, as [PROTOCOL=]ENDPOINT: a Twisted server endpoint such as tcp:7650,"
        " ssl:..., unix:..., systemd:... or haproxy:tcp:..., and what is spoken there, unless it is"
        f" {DEFAULT}; may be given several times [default: {' '.join(map(str, DEFAULT_LISTEN))}]"
    )
    opt_l = opt_listen

    def opt_listen_option(self, pair: str) -> None:
        name, equals, value = pair.partition("=")
        if not equals or not self.listen:
            raise usage.UsageError("--listen-option NAME=VALUE stands behind its --listen")
        listen = self.listen[-1]
        if {name, f"{name}-file"} & listen.options.keys():
            raise usage.UsageError(f"--listen-option {name}: it is given twice")
        try:
            options = {**listen.options, **options_with_files({name: value})}
        except ValueError as error:
            raise usage.UsageError(f"--listen-option {error}") from None
        self.listen[-1] = replace(listen, options=options)

    opt_listen_option.__doc__ = (  # a docstring's own line breaks would stand in the help
        "NAME=VALUE, an option of the protocol of the --listen before it, such as"
        " networks=10.0.0.0/8, device=gateway or shared-key-file=PATH; see PROTOCOLS.md. In the"
        " file these stand in a table [[listen]] beside endpoint and protocol"
    )

    def parseOptions(self, options: Any = None) -> None:
        """Parse, and end the program with one line where the command line makes no sense."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            what = str(error).rstrip(".")
            unknown = _UNKNOWN.fullmatch(what)
            if unknown and (hint := did_you_mean(unknown[1], self._long_options())):
                what = f"{what}; {hint}"
            raise SystemExit(f"twistd ingest: {what}; see twistd ingest --help") from None

    def _long_options(self) -> list[str]:
        """Return the options as they are written."""
        return [f"--{name.rstrip('=')}" for name in self.longOpt]

    def postOptions(self) -> None:
        """Check every value now, where an error is still one line.

        Raises:
            UsageError: a value, or one in the file, makes no sense.
        """
        try:
            self.settings = self.read()
        except SettingsError as error:
            raise usage.UsageError(str(error)) from error
        twistd = self.parent
        settle_files(twistd)
        if twistd is not None and self.settings.log_format == "json":
            self.make_observer = _json_log(twistd)

    def read(self) -> Settings:
        """Put the settings together; the file is read afresh.

        Raises:
            SettingsError: a value makes no sense.
        """
        given: dict[str, Any] = {
            setting.name: self[option_name(setting.name)]
            for setting in PARSED
            if self[option_name(setting.name)] is not None
        }
        if self.listen:
            given["listen"] = self.listen
        if self["allow-plaintext-auth"]:
            given["allow_plaintext_auth"] = True
        return read_settings(given, Path(self["config"]) if self["config"] else None)


def _json_log(twistd: usage.Options) -> Callable[[], ILogObserver]:
    """Return what makes the observer that writes JSON to where twistd would write its text.

    Raises:
        UsageError: it is to write elsewhere, or nowhere.
    """
    for other in ("logger", "syslog"):
        if twistd[other]:
            raise usage.UsageError(f"--log-format json makes no sense with twistd's --{other}")
    in_background = not twistd["nodaemon"]
    name = twistd["logfile"] or (LOG_FILE if in_background else "-")
    if name == "-" and in_background:
        raise usage.UsageError("in the background there is no standard output to log to")
    return lambda: json_observer(sys.stdout if name == "-" else LogFile.fromFullPath(name))


def makeService(options: Options) -> IService:
    """Make the service of `twistd ingest`."""
    from twisted.internet import reactor  # noqa: PLC0415 - the one place that chooses it

    from ingest.ops.monotonic import use_monotonic_time  # noqa: PLC0415
    from ingest.service.parts import IListenerReactor  # noqa: PLC0415
    from ingest.service.process import StartError  # noqa: PLC0415
    from ingest.service.tree import ListenerService  # noqa: PLC0415

    chosen = cast(IListenerReactor, reactor)
    use_monotonic_time(chosen)
    try:
        # In the background standard error is closed, but for a copy of it.
        stderr = os.fdopen(os.dup(2), "w") if options.is_daemonized else None
        service = ListenerService(options.settings, chosen, options.read, stderr=stderr)
    except StartError as error:
        raise SystemExit(f"ingest: can't start: {error}") from None
    service.make_observer = options.make_observer
    return service
