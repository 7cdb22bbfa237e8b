"""All that the page knows: who reads the log, and who asks the listener, put it there."""

from ingest.layout import Layout
from ingest.units import format_count, format_duration
from ingest.watch.contact import Contact
from ingest.watch.converting import Converting
from ingest.watch.follower import Follower, Traffic
from ingest.watch.roster import Roster
from ingest.watch.series import Curves


class Known:
    """What is known of one listener and its log.

    Attributes:
        layout: the data folder.
        roster: the devices.
        curves: the last hour.
        traffic: the fleet's frames.
        follower: who reads the log.
        contact: who asks the listener.
        converting: what makes Parquet of closed files; None if nothing does.
    """

    def __init__(self, layout: Layout, converting: Converting | None = None) -> None:
        """Nothing is read yet.

        Raises:
            OSError, sqlite3.Error: the state can't be written.
        """
        self.layout = layout
        self.roster = Roster()
        self.curves = Curves()
        self.traffic = Traffic()
        self.follower = Follower(layout, self.roster, self.curves, self.traffic)
        self.contact = Contact(layout.control, self.roster)
        self.converting = converting
        self.trouble = ""
        """Why the log can't be followed at the moment; empty if it is."""

    def health(self) -> tuple[str, str]:
        """Return how the listener is, in a word, and why; `ok` if it delivers and we can see it."""
        answer = self.contact.answer
        if answer.failure:
            return "down", answer.failure
        health, reason = answer.status["health"], answer.status["reason"]
        if health == "ok" and self.trouble:
            return "log-unreadable", self.trouble
        return health, reason

    def in_words(self) -> str:
        """Return one line for a person."""
        health, reason = self.health()
        words = [f"{health}: {reason}" if reason else health]
        words.append(format_count(len(self.roster.entries), "device"))
        progress = self.follower.progress
        if progress.is_late:
            words.append(f"{format_duration(round(progress.behind))} behind the log")
        return "; ".join(words)
