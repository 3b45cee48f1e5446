"""The log of a run as a small table: one short line per count, reason, limit and phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.outcomes import MOST_LISTED

if TYPE_CHECKING:
    from airflow_provider_emqx.results import Guard, Reason

#: reasons that a log and a result name, the most frequent ones
REASONS = 10


class Reasons:
    """
    Reasons for outcomes other than the one wanted: how often each was met, and its first example.

    :param most: reasons that are counted each for itself: they may name what is wrong, and be as many as the objects.
    """

    def __init__(self, most: float = MOST_LISTED) -> None:
        self._most = most
        self._found: dict[tuple[str, str], Reason] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(
        self, outcome: str, reason: str, name: str | None, line: int | None = None, file: str = ""
    ) -> None:
        """
        Count an object.

        :param outcome: what became of it.
        :param reason: why; empty if that is not known.
        :param name: its id.
        :param line: where a source has it.
        :param file: the same, if the source is several files.
        """
        found = self._found.get((outcome, reason))
        if found is None and len(self._found) >= self._most:
            reason = "other reasons"
            found = self._found.get((outcome, reason))
        if found is None:
            found = {"outcome": outcome, "reason": reason, "count": 0, "id": name}
            if line is not None:
                found["line"] = line
            if file:
                found["file"] = file
            self._found[outcome, reason] = found
        found["count"] += 1

    def explain(self, outcome: str, reason: str) -> None:
        """
        Name the reason of those of an outcome that have none.

        :param outcome: theirs.
        :param reason: why.
        """
        found = self._found.pop((outcome, ""), None)
        if found is not None:
            found["reason"] = reason
            self._found[outcome, reason] = found

    def most_frequent(self) -> list[Reason]:
        """Return the ten most frequent reasons."""
        found = sorted(self._found.values(), key=lambda reason: -reason["count"])[:REASONS]
        return [reason.copy() for reason in found if reason["reason"]]


def tell(log: Any, level: int, lines: Iterator[str]) -> None:
    """
    Log a table, each line as a message of its own: a log viewer then shows all of them.

    :param log: a logger of Python or of Airflow.
    :param level: of each line.
    :param lines: as of :func:`table`.
    """
    for line in lines:
        log.log(level, "%s", line)


def table(
    title: str,
    counts: Mapping[str, int],
    *,
    notes: Mapping[str, str] | None = None,
    reasons: Sequence[Reason] = (),
    guards: Sequence[Guard] = (),
    phases: Mapping[str, float] | None = None,
    report_path: str | None = None,
) -> Iterator[str]:
    """
    Return the lines of a run's log.

    :param title: the first line.
    :param counts: objects by outcome; those of 0 are left out.
    :param notes: what is to be said of an outcome, beside its count.
    :param reasons: why objects have an outcome other than the one wanted, with an example of each.
    :param guards: limits that the run was held to.
    :param phases: seconds by part of the work; those of no length are left out.
    :param report_path: where the file with the outcome of each object is.
    """
    yield title if any(counts.values()) else f"{title}: nothing done"
    for outcome, count in counts.items():
        if count:
            note = (notes or {}).get(outcome, "")
            yield f"{count:>9,}  {outcome.replace('_', ' ')}{note and f': {note}'}"
    for reason in reasons:
        yield f"{_times(reason)}: {reason['reason']}{_example(reason)}"
    for held in guards:
        yield f"Limit {_guard_words(held)}"
    if spent := {name: seconds for name, seconds in (phases or {}).items() if seconds >= 0.05}:
        yield f"Time: {', '.join(f'{name} {seconds:,.1f} s' for name, seconds in spent.items())}"
    if report_path:
        yield f"Report: {report_path}"


def guard(name: str, count: int, allowed: int, of: int | None = None) -> Guard:
    """
    Return a limit, and how near a run came to it, as a result has it.

    :param name: of the argument.
    :param count: what is held to it.
    :param allowed: the limit as a number.
    :param of: what a share is taken of.
    """
    return {"name": name, "count": count, "allowed": allowed, "of": of, "exceeded": count > allowed}


def _guard_words(held: Guard) -> str:
    of = "" if held["of"] is None else f" of {held['of']:,}"
    return f"{held['name']}: {held['count']:,}{of}, {held['allowed']:,} allowed"


def _times(reason: Reason) -> str:
    return f"{reason['count']:,} {reason['outcome'].replace('_', ' ')}"


def _example(reason: Reason) -> str:
    if "line" not in reason:
        return "" if reason["id"] is None else f"; for example {reason['id']!r}"
    place = f"{reason['file']}, line {reason['line']}" if "file" in reason else f"line {reason['line']}"
    return f"; for example {place}, id {reason['id']!r}"
