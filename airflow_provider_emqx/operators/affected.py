"""Who was affected by an operator that deletes or kicks: the limit before, and the account after."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, cast

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.base import MOST_LISTED
from airflow_provider_emqx.provisioning.report import limit


def check_limit(most: float | str | None, selected: int, what: str, count: Callable[[], int]) -> None:
    """
    Refuse to touch more than the user has allowed.

    :param most: a count (``5``, ``"5"``), a share (``0.05``, ``"5%"``), or ``None`` for no limit.
    :param selected: how many would be touched.
    :param what: their name in the plural.
    :param count: counts all that there are, if a share is asked for.
    :raises EmqxConfigError: if there are more; nothing has been touched.
    """
    text = "" if most is None else str(most).strip()
    share = text and not text.isdecimal()
    total = count() if share else 0
    allowed = limit(most, total, "max_affected")
    if allowed is not None and selected > allowed:
        of = f" of {total:,}" if share else ""
        raise EmqxConfigError(
            f"{selected:,}{of} {what} are selected, more than max_affected={most!r} allows ({allowed:,}): nothing was "
            "touched. Look with dry_run=True, then correct the selection or the limit"
        )


class Affected:
    """
    What became of everything selected: lists of at most 1,000, counts, and a file for all, written when the ``with``
    statement ends, well or not.

    :param name: what identifies one of them, as ``"clientid"``.
    :param outcomes: what may become of one.
    :param report: path or URL of a JSON Lines file; local files are for their owner only.
    """

    def __init__(
        self, name: str, outcomes: Sequence[str], report: str | os.PathLike[str] | None = None
    ) -> None:
        self.name = name
        self.report = str(report) if report else None
        self._found: dict[str, list[Any]] = {outcome: [] for outcome in outcomes}

    def __enter__(self) -> Affected:
        # a place that cannot be written to is found out before anything is touched
        self._write()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._write()

    def add(self, outcome: str, names: Iterable[Any]) -> None:
        """
        Account for some.

        :param outcome: what became of them.
        :param names: who or what they are.
        """
        self._found[outcome] += names

    def words(self) -> str:
        """Say what became of them in a few words."""
        counts = {outcome: len(names) for outcome, names in self._found.items()}
        return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items() if count) or "none"

    def result(self) -> dict[str, Any]:
        """Give lists, counts and the file's place."""
        return {
            **{outcome: names[:MOST_LISTED] for outcome, names in self._found.items()},
            "counts": {outcome: len(names) for outcome, names in self._found.items()},
            "report": self.report,
        }

    def _write(self) -> None:
        if self.report is None:
            return
        try:
            with _open(self.report) as file:
                for outcome, names in self._found.items():
                    file.writelines(
                        json.dumps({self.name: name, "outcome": outcome}, ensure_ascii=False) + "\n"
                        for name in names
                    )
        except (OSError, ImportError, ValueError, NotImplementedError) as error:
            raise EmqxConfigError(f"report {self.report!r} cannot be written: {error}") from error


def _open(target: str) -> IO[str]:
    if "://" not in target:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # one that was there keeps its mode otherwise
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "w", encoding="utf-8")
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return cast("IO[str]", cast("Any", ObjectStoragePath(target)).open("w"))
