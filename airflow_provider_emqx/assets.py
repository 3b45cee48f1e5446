"""Assets of Airflow and datasets of OpenLineage for what runs change at a broker."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit

from airflow.providers.common.compat.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.common.compat.sdk import Context

_SCHEME = "emqx"


def asset_uri(host: str, kind: str, scope: str = "") -> str:
    """
    Return the URI of an asset.

    :param host: name of the broker's host, as in the connection; without a port.
    :param kind: ``"users"`` or ``"acl"``.
    :param scope: of the users: a pattern as of ``scope`` of the operator, empty for all.
    """
    name = f"[{host}]" if ":" in host else host
    return f"{_SCHEME}://{name}/{kind}" + (f"/{quote(scope, safe='*')}" if scope else "")


def create_asset(*, host: str, kind: str = "users", scope: str = "", extra: Any = None) -> Asset:
    """
    Return an asset, for DAG files.

    :param host: as of :func:`asset_uri`.
    :param kind: the same.
    :param scope: the same.
    :param extra: as of ``Asset``.
    """
    return Asset(uri=asset_uri(host, kind, scope), extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Return a URI in the form in which two that mean the same are equal.

    :param uri: with the scheme ``emqx``.
    :raises ValueError: without a host, or without a kind.
    """
    if not uri.hostname or not uri.path.strip("/"):
        raise ValueError(
            f"{uri.geturl()!r} is not an asset of EMQX; expected emqx://host/users or emqx://host/acl"
        )
    host = f"[{uri.hostname}]" if ":" in uri.hostname else uri.hostname
    return uri._replace(netloc=host, query="", fragment="")


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """
    Return the dataset of OpenLineage that an asset stands for.

    :param asset: with a URI of the scheme ``emqx``.
    :param lineage_context: not needed.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(**_dataset(asset.uri))


def announce(
    context: Context, outlets: Sequence[Any], uris: Sequence[str], counts: Mapping[str, Any]
) -> None:
    """
    Attach counts to the asset events that Airflow makes of a task's outlets when it succeeds.

    An outlet with a URI of the scheme ``emqx`` gets the counts. An ``AssetAlias`` gets an event for each URI.

    :param context: of the task; one without events, as of a test, is left alone.
    :param outlets: of the task.
    :param uris: what the run was about.
    :param counts: of the run, for the events' ``extra``.
    """
    events: Any = context.get("outlet_events")
    if events is None:
        return
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            for uri in uris:
                events[outlet].add(Asset(uri=uri), extra=dict(counts))
        elif isinstance(outlet, Asset) and outlet.uri.startswith(f"{_SCHEME}://"):
            events[outlet].extra.update(counts)


def lineage(source: Any, uris: Sequence[str], rows: int) -> Any:
    """
    Return what OpenLineage is to know of a run; called by its provider only, so it is installed.

    :param source: of the rows; only a path or URL has a name.
    :param uris: what the run was about.
    :param rows: how many were written.
    :return: an ``OperatorLineage``.
    """
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.openlineage.extractors import (  # type: ignore[import-not-found,unused-ignore]
        OperatorLineage,
    )

    inputs = (
        [Dataset(**_dataset(str(source)))] if isinstance(source, str | os.PathLike) and str(source) else []
    )
    statistics = {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=rows)}
    outputs = [OutputDataset(**_dataset(uri), outputFacets=statistics) for uri in uris]
    return OperatorLineage(inputs=inputs, outputs=outputs)


def _dataset(place: str) -> dict[str, str]:
    """Return namespace and name of a file, an object or an asset, as OpenLineage writes them."""
    parts = urlsplit(place)
    if "://" not in place or parts.scheme == "file":
        return {"namespace": "file", "name": os.path.abspath(parts.path if parts.scheme == "file" else place)}
    # what stands before the @ is an Airflow connection
    return {
        "namespace": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        "name": parts.path.strip("/"),
    }
