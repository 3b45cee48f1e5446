"""A listing of any length as the result of a task."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from airflow_provider_emqx.api.base import Operation, Page, R
from airflow_provider_emqx.outcomes import MOST_LISTED
from airflow_provider_emqx.row_files import written_whole

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.results import ListResult

log = logging.getLogger(__name__)


def write_rows(
    hook: EmqxHook, listing: Operation[Page[R]], output_path: str | os.PathLike[str] | None
) -> ListResult[R]:
    """
    Process a listing of any length: the first 1,000 rows for XCom, all of them for a file.

    :param listing: reads the first page.
    :param output_path: path or URL of a JSON Lines file, which is replaced when the listing is complete; ``None`` for
        no file.
    :return: ``{"count", "rows", "output_path", "listing_moved"}``.
    """
    first: list[R] = []
    count = 0
    with written_whole(output_path, "output file") as file:
        for row in hook.rows(listing):
            count += 1
            if len(first) < MOST_LISTED:
                first.append(row)
            file.write([row])
    if count > len(first) and not output_path:
        log.warning(
            "The result holds the first %d of %d rows; name an output_path for all", len(first), count
        )
    log.info("%s rows%s", f"{count:,}", f" in {output_path}" if output_path else "")
    return {
        "count": count,
        "rows": first,
        "output_path": str(output_path) if output_path else None,
        "listing_moved": hook.listing_moved,
    }
