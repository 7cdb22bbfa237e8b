"""`twistd ingest`: its options, and the service that they make."""

from pathlib import Path
from typing import Any, cast

from twisted.application.service import IService
from twisted.python import usage

from ingest.service.settings import (
    DEFAULT_LISTEN,
    PARSED,
    Settings,
    SettingsError,
    option_name,
    read_settings,
)


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
        super().__init__()
        self.listen: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        self.listen.append(endpoint)

    opt_listen.__doc__ = (
        "where to listen, a Twisted server endpoint: tcp:7650, ssl:..., unix:..., systemd:...,"
        f" haproxy:tcp:...; may be given several times [default: {' '.join(DEFAULT_LISTEN)}]"
    )
    opt_l = opt_listen

    def parseOptions(self, options: Any = None) -> None:
        """Parse, and end the program with one line where the command line makes no sense."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            what = str(error).rstrip(".")
            raise SystemExit(f"twistd ingest: {what}; see twistd ingest --help") from None

    def postOptions(self) -> None:
        """Check every value now, where an error is still one line.

        Raises:
            UsageError: a value, or one in the file, makes no sense.
        """
        try:
            self.settings = self.read()
        except SettingsError as error:
            raise usage.UsageError(str(error)) from error

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


def makeService(options: Options) -> IService:
    """Make the service of `twistd ingest`."""
    from twisted.internet import reactor  # noqa: PLC0415 - the one place that chooses it

    from ingest.service.tree import (  # noqa: PLC0415
        IListenerReactor,
        ListenerService,
        StartError,
    )

    try:
        return ListenerService(options.settings, cast(IListenerReactor, reactor), options.read)
    except StartError as error:
        raise SystemExit(f"ingest: can't start: {error}") from None
