"""The record of a command's devices, in memory and in the task's report."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_emqx.files import Location, exists, open_to_read, shown
from airflow_provider_emqx.outcomes import (
    FAILED,
    MOST_LISTED,
    NO_REPLY,
    NOT_DELIVERED,
    REPLIED,
    UNADDRESSABLE,
    UNKNOWN,
)
from airflow_provider_emqx.row_files import append_lines, written_whole
from airflow_provider_emqx.run_log import Reasons, table

if TYPE_CHECKING:
    from airflow_provider_emqx.results import CommandResult, Guard, Reason

#: on its way, acknowledged by the broker: a reply is awaited
SENDING, SENT = "sending", "sent"
#: nothing was sent after all
LEFT = "left"
#: in place of a device's row: the wave was judged, and the roll-out goes on or has ended
JUDGED = "judged"
#: what may become of a device
OUTCOMES = (REPLIED, FAILED, NO_REPLY, NOT_DELIVERED, UNKNOWN, UNADDRESSABLE)
#: characters of a reply that are kept, if replies are
_REPLY = 1_000


@dataclass(slots=True)
class Row:
    """
    The state of one device.

    :param clientid: client id.
    :param outcome: one of :data:`OUTCOMES`, or ``sending``, ``sent``.
    :param wave: number of its wave, from 1.
    :param at: time of the outcome, seconds since 1970.
    :param reason: why it is not a success.
    :param reply: its reply, if replies are kept.
    """

    clientid: str
    outcome: str
    wave: int
    at: float
    reason: str = ""
    reply: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a reply is awaited."""
        return self.outcome in (SENDING, SENT)

    def line(self, command: str) -> dict[str, Any]:
        """Return the line of the report."""
        row: dict[str, Any] = {
            "clientid": self.clientid,
            "outcome": self.outcome,
            "wave": self.wave,
            "at": round(self.at, 3),
        }
        if self.reason:
            row["reason"] = self.reason
        if self.reply is not None:
            row["reply"] = self.reply
        return {**row, "command": command}


class Record:
    """
    The devices of a command and their states.

    With a report it is a file, from which another attempt, or the triggerer, continues: an entry is on its way to the
    disk when :meth:`tell` returns. A line may be followed by a newer one of the same device until :meth:`settle`
    leaves one for each. An object store cannot append: there each :meth:`tell` writes the whole object.

    :param command: what the lines of this command are known by; others in the file are not used, and lost.
    :param report_path: path or URL of the JSON Lines file, or ``None``.
    """

    def __init__(self, command: str, report_path: Location | None = None) -> None:
        self.command = command
        self.report_path = report_path or None
        self.rows: dict[str, Row] = {}
        self._writing = Lock()
        #: number of the latest wave of which it is decided whether another one follows
        self.judged = 0
        if self.report_path is not None and exists(self.report_path):
            self._load(self.report_path)
        # a place that cannot be written to is found out before anything is sent
        self.settle()

    def _load(self, report: Location) -> None:
        with open_to_read(report) as file:
            for line in file.read().splitlines():
                try:
                    found = json.loads(line)
                    if found.pop("command", None) == self.command:
                        self._take(Row(**found))
                except (ValueError, TypeError, AttributeError):
                    continue  # the last line of a killed task may be cut off

    def tell(self, rows: Iterable[Row]) -> None:
        """
        Note what has become known.

        :param rows: of devices; each replaces the older one.
        """
        told = list(rows)
        self.take(told)
        self.write(told)

    def take(self, rows: Iterable[Row]) -> None:
        """
        Note it in memory.

        :param rows: of devices; each replaces the older one.
        """
        for row in rows:
            self._take(row)

    def write(self, rows: Sequence[Row]) -> None:
        """
        Write down what was noted. Blocks; several threads may call it.

        :param rows: as taken.
        """
        with self._writing:
            if (
                self.report_path is not None
                and rows
                and not append_lines(self.report_path, self._lines(rows), "report")
            ):
                self.settle()

    def _take(self, row: Row) -> None:
        if row.outcome == JUDGED:
            self.judged = row.wave
        elif row.outcome == LEFT:
            self.rows.pop(row.clientid, None)
        else:
            self.rows[row.clientid] = row

    def judge(self) -> None:
        """Note that the latest wave was judged."""
        self.tell([Row("", JUDGED, self.wave, time.time())])

    def settle(self) -> None:
        """Leave one line for each device in the report, and one for the latest wave that was judged."""
        if self.report_path is not None:
            judged = [Row("", JUDGED, self.judged, time.time())] if self.judged else []
            with written_whole(self.report_path, "report") as file:
                file.write(self._lines([*list(self.rows.values()), *judged]))

    def _lines(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        return (row.line(self.command) for row in rows)

    def open(self) -> list[str]:
        """Return the devices from which a reply is awaited."""
        return [row.clientid for row in self.rows.values() if row.is_open]

    def note(self, clientids: Iterable[str], outcome: str, reason: str = "") -> list[Row]:
        """
        Make rows of devices that have one already, of the same wave.

        :param clientids: of the devices.
        :param outcome: what became of them.
        :param reason: why.
        """
        now = time.time()
        return [Row(clientid, outcome, self.rows[clientid].wave, now, reason) for clientid in clientids]

    @property
    def wave(self) -> int:
        """Number of the latest wave, 0 before the first."""
        return max((row.wave for row in self.rows.values()), default=0)

    def of_wave(self, wave: int) -> list[Row]:
        """Return the rows of a wave."""
        return [row for row in self.rows.values() if row.wave == wave]

    def words(self) -> str:
        """Return what became of the devices in a few words."""
        counts = self._counts()
        told = [f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in counts.items() if count]
        return ", ".join(told) or "nothing sent"

    def _counts(self) -> dict[str, int]:
        counts = Counter(row.outcome for row in self.rows.values())
        open_ = counts[SENDING] + counts[SENT]
        return {outcome: counts[outcome] for outcome in OUTCOMES} | ({"awaited": open_} if open_ else {})

    def lines(self, title: str, left: Sequence[str], guards: Sequence[Guard] = ()) -> Iterator[str]:
        """
        Return what the log says of the command.

        :param title: how it begins.
        :param left: devices that nothing was sent to.
        :param guards: limits that it was held to.
        """
        return table(
            title,
            {**self._counts(), "not begun": len(left)},
            reasons=self._most_frequent(),
            guards=guards,
            report_path=self._place(),
        )

    def _most_frequent(self) -> list[Reason]:
        reasons = Reasons(most=math.inf)
        for row in self.rows.values():
            if row.reason:
                reasons.add(row.outcome, row.reason, row.clientid)
        return reasons.most_frequent()

    def _place(self) -> str | None:
        return shown(self.report_path) if self.report_path is not None else None

    def result(self, left: Sequence[str], guards: Sequence[Guard] = ()) -> CommandResult:
        """
        Return counts, lists of at most 1,000 devices, and the most frequent reasons.

        :param left: devices that nothing was sent to.
        :param guards: limits that the command was held to.
        """
        lists: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
        replies: dict[str, str] = {}
        for row in self.rows.values():
            if row.outcome in lists and len(lists[row.outcome]) < MOST_LISTED:
                lists[row.outcome].append(row.clientid)
            if row.reply is not None and len(replies) < MOST_LISTED:
                replies[row.clientid] = row.reply
        result = {
            **lists,
            "counts": self._counts(),
            "selected": len(self.rows) + len(left),
            "left": list(left[:MOST_LISTED]),
            "left_count": len(left),
            "waves": self.wave,
            "reasons": self._most_frequent(),
            "guards": list(guards),
            **({"replies": replies} if replies else {}),
            "report_path": self._place(),
        }
        return cast("CommandResult", result)


def kept(payload: bytes) -> str:
    """Return as much of a reply as is kept."""
    return payload[: 4 * _REPLY].decode(errors="replace")[:_REPLY]
