"""A process that runs the rules of a data folder, and writes down what it shows.

Run it: `python -m tests.watch.rules.watcher DATA RULES [MODULE.NAME=SECONDS ...]`; what follows the
rules are pauses that are shorter than usual.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogBeginner, textFileLogObserver

from ingest.watch.rules.service import RulesService
from tests.support.hurried import hurry


def main(data: Path, file: Path) -> None:
    reactor: Any = installed
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    service = RulesService(data, file, reactor)
    view = data / "view.json"

    def show() -> None:
        shown = {
            "alerts": service.alerts(),
            "events": service.events(),
            "rules": service.rules(),
            "receivers": service.receivers(),
            "lag": service.lag,
            "failure": service.failure,
        }
        view.with_suffix(".new").write_text(json.dumps(shown))
        view.with_suffix(".new").rename(view)

    service.startService()
    reactor.callWhenRunning(
        signal.signal, signal.SIGHUP, lambda *_: reactor.callFromThread(service.reload)
    )
    # Whoever sees the first view may send a signal.
    reactor.callWhenRunning(LoopingCall(show).start, 0.05)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    hurry(sys.argv[3:])
    main(Path(sys.argv[1]), Path(sys.argv[2]))
