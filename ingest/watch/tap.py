"""`twistd ingest-watch`: its options, and the service that they make."""

import signal
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

from ingest.layout import DEFAULT_DATA
from ingest.ops.standard import keep_standard_streams
from ingest.ops.twistd import help_width, settle_files
from ingest.watch.packages import PACKAGES

DEFAULT_HTTP: Final = "tcp:7681:interface=127.0.0.1"


class Options(usage.Options):
    """The command line of `twistd ingest-watch`."""

    synopsis = "[options]"
    longdesc = (
        "Show what a listener collects, as a web page: whether the fleet delivers, which device"
        " does not and why, and any reading as a curve. It is a process of its own, which follows"
        " the log: the listener need not run, and is not slowed down. On 127.0.0.1 it asks for no"
        " password. Anywhere else it wants --password-file and TLS, or is behind a proxy that"
        " reaches it by a Unix socket."
    )
    optParameters = [  # noqa: RUF012 - as usage.Options has it
        ["data", None, str(DEFAULT_DATA), "the listener's data folder"],
        ["http", None, DEFAULT_HTTP, "where the page is: a Twisted server endpoint, such as "
         "ssl:7681:privateKey=key.pem:certKey=cert.pem or unix:/run/ingest/page.sock"],
        ["password-file", None, None, "who may look: lines that `ingest page-password` writes"],
        ["rules", None, None, "rules to follow the log with: see ingest/watch/rules/RULES.md;"
         " SIGHUP reads the file again"],
        ["columns", None, "on", "on or off: whether closed files of the log are made into Parquet,"
         " which makes queries fast"],
    ]  # fmt: skip

    def __init__(self) -> None:
        keep_standard_streams()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it would end us before we can act on it
        super().__init__()
        self.hosts: list[str] = []

    def opt_host(self, name: str) -> None:
        self.hosts.append(name.lower())

    opt_host.__doc__ = (  # a docstring's own line breaks would stand in the help
        "a name besides localhost by which browsers call the page, as behind a proxy on this"
        " machine; may be given several times"
    )

    def getUsage(self, width: int | None = None) -> str:
        """Return the help."""
        return str(super().getUsage(help_width(width)))

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"ingest {version('ingest')}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse, and end the program with one line where the command line makes no sense."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(
                f"twistd ingest-watch: {str(error).rstrip('.')}; see twistd ingest-watch --help"
            ) from None

    def parseArgs(self, *args: str) -> None:
        """Refuse what is no option."""
        if args:
            raise usage.UsageError(f"there is no argument {args[0]!r}")

    def postOptions(self) -> None:
        """Check what can be checked before the start.

        Raises:
            UsageError: packages are missing, or a file is.
        """
        if missing := [name for name in PACKAGES if find_spec(name) is None]:
            raise usage.UsageError(
                f"it needs more packages ({', '.join(missing)}): pip install 'ingest[watch]'"
            )
        for name in ("password-file", "rules"):
            if self[name] and not Path(self[name]).is_file():
                raise usage.UsageError(f"--{name}: there is no file {self[name]}")
        if self["columns"] not in ("on", "off"):
            raise usage.UsageError(f"--columns: {self['columns']!r} is neither on nor off")
        settle_files(self.parent)


def makeService(options: Options) -> IService:
    """Make the service of `twistd ingest-watch`."""
    from twisted.internet import reactor  # noqa: PLC0415 - the one place that chooses it

    from ingest.ops.monotonic import use_monotonic_time  # noqa: PLC0415
    from ingest.watch.auth import PasswordFileError  # noqa: PLC0415
    from ingest.watch.rules.rulesfile import RulesError  # noqa: PLC0415
    from ingest.watch.rules.service import RulesService  # noqa: PLC0415
    from ingest.watch.service import Settings, WatchService, no_start  # noqa: PLC0415

    use_monotonic_time(cast(IReactorTime, reactor))
    data, rules_file = Path(options["data"]), options["rules"]
    settings = Settings(
        data=data,
        http=options["http"],
        password_file=Path(options["password-file"]) if options["password-file"] else None,
        columns=options["columns"] == "on",
        hosts=tuple(options.hosts),
    )
    try:
        rules = RulesService(data, Path(rules_file), reactor) if rules_file else None
        service = WatchService(settings, reactor, rules)
    except (OSError, PasswordFileError, RulesError) as error:
        raise SystemExit(no_start(error)) from None
    if rules is not None:
        rules.setServiceParent(service)
    return cast(IService, service)
