"""The hook: a client for an Airflow connection, with the API's operations as methods."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote, urlsplit

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_provider_emqx.choices import UserIdType
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
)
from airflow_provider_emqx.hooks.auth import AuthMethods
from airflow_provider_emqx.hooks.clients import ClientMethods
from airflow_provider_emqx.hooks.cluster import ClusterMethods
from airflow_provider_emqx.hooks.topics import TopicMethods
from airflow_provider_emqx.transport.session import Session

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_emqx.choices import Bulk, OnRejected, SourceFormat, UsersMode
    from airflow_provider_emqx.keywords import SourceOptions
    from airflow_provider_emqx.provisioning.outcomes import Outcome
    from airflow_provider_emqx.transport.aio import AsyncClient
    from airflow_provider_emqx.transport.mqtt import MqttClient
    from airflow_provider_emqx.transport.settings import Settings


class EmqxHook(ClientMethods, TopicMethods, AuthMethods, ClusterMethods, BaseHook):
    """
    Talk to the management API of an EMQX broker, version 4.4, 5 or 6, self-hosted or in EMQX Cloud.

    The generation of the API is detected at the first call and makes no difference to the caller: results have the
    field names of EMQX 5, times are RFC 3339, absent values are ``None``. A call that the broker does not support
    raises
    :class:`~airflow_provider_emqx.exceptions.EmqxUnsupportedError`.

    ``get_…`` returns a dict, or ``None``; ``list_…`` returns a lazy iterator that reads page after
    page (only :meth:`list_acl_rules` a list). A WARNING and :attr:`listing_moved` say if rows changed in the meantime,
    so that some may be missing. Make a list of it before you delete its rows, because deletions shift the later pages
    and rows would be missed. Removing an absent object returns ``False`` (``None`` on EMQX 4, which
    does not report it). Every method raises :class:`~airflow_provider_emqx.exceptions.EmqxError`.

    The hook keeps one session; close it with :meth:`close` or use it in a ``with`` statement. One hook is for one
    thread. In ``async`` tasks and triggers, use it in an ``async with`` statement and await operations of :attr:`api`
    with :meth:`arun`.

    :param user_id_type: the table of users, ``"username"`` or ``"clientid"``. EMQX 4 has a table for each, and
        ``"username"`` is the default. On EMQX 5 and 6 the authenticator decides.
    :param rate_limit: maximum requests per second, instead of the connection's.
    :param retry_unsafe: repeat a publish (or a POST of :meth:`request`) that the broker says it could not process
        at the moment. Messages may be published twice.
    """

    conn_name_attr = "emqx_conn_id"
    default_conn_name = "emqx_default"
    conn_type = "emqx"
    hook_name = "EMQX"

    def __init__(
        self,
        emqx_conn_id: str = default_conn_name,
        *,
        user_id_type: UserIdType | None = None,
        rate_limit: float | None = None,
        retry_unsafe: bool = False,
    ) -> None:
        BaseHook.__init__(self)
        Session.__init__(self)
        self.emqx_conn_id = emqx_conn_id
        self.user_id_type = user_id_type
        self.rate_limit = rate_limit
        self.retry_unsafe = retry_unsafe

    # ------------------------------------------------------------------ connection and client

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection form, to Airflow before 3.2; later ones never ask."""
        from airflow_provider_emqx.hooks.form import form_widgets

        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels of the connection form, to Airflow before 3.2; later ones never ask."""
        from airflow_provider_emqx.hooks.form import field_behaviour

        return field_behaviour()

    @cached_property
    def settings(self) -> Settings:
        """The validated settings of the connection."""
        conn = self.get_connection(self.emqx_conn_id)
        return self._settings(conn, conn.extra_dejson)

    def _settings(self, conn: Connection, extras: Mapping[str, Any]) -> Settings:
        from airflow.providers.common.compat.sdk import mask_secret

        from airflow_provider_emqx.arguments import choice
        from airflow_provider_emqx.hooks.connection import read_connection

        if self.user_id_type is not None:
            choice("user_id_type", self.user_id_type, get_args(UserIdType))
        settings = read_connection(
            conn,
            extras,
            user_id_type=self.user_id_type,
            rate_limit=self.rate_limit,
            retry_unsafe=self.retry_unsafe,
        )
        # Airflow masks the password itself, but not what is made of it, nor a password in a proxy's address
        mask_secret(settings.authorization.removeprefix("Basic "))
        proxy = urlsplit(settings.proxy or "")
        if proxy.password:
            mask_secret(unquote(proxy.password))
        if settings.mqtt is not None and settings.mqtt.password:
            mask_secret(settings.mqtt.password)
        return settings

    async def async_settings(self) -> Settings:
        """Read the connection once without blocking the event loop; :attr:`settings` has it from then on."""
        import asyncio

        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

        if "settings" not in self.__dict__:
            conn = await get_async_connection(self.emqx_conn_id, hook=self)
            # fills the slot of the cached property, so that both sides share one check-up
            # in a thread, because masking a secret talks to Airflow's supervisor and blocks meanwhile
            self.__dict__["settings"] = await asyncio.to_thread(
                self._settings, conn, await get_async_extra_dejson(conn)
            )
        return self.settings

    @asynccontextmanager
    async def async_client(self, connections: int = 32) -> AsyncIterator[AsyncClient]:
        """
        Open a client for an event loop: ``async with hook.async_client() as client``.

        The connection is looked up without blocking the loop.

        :param connections: how many requests may be in flight at once.
        """
        from airflow_provider_emqx.transport.aio import AsyncClient

        async with AsyncClient(await self.async_settings(), connections) as client:
            await client.identify()
            yield client

    @asynccontextmanager
    async def mqtt(
        self,
        clientid: str | None = None,
        *,
        clean_start: bool = True,
        session_expiry: int = 0,
        receive_maximum: int = 100,
    ) -> AsyncIterator[MqttClient]:
        """
        Open an MQTT 5 connection in an event loop: ``async with hook.mqtt() as client``.

        It needs the extra ``mqtt`` of this package (paho-mqtt), and the connection's MQTT address. The client has
        ``subscribe``, ``publish``, ``receive`` and ``acknowledge``; what is received must be acknowledged.

        :param clientid: client id. Default: a random one.
        :param clean_start: begin with an empty session.
        :param session_expiry: seconds for which the broker keeps the session after the connection.
        :param receive_maximum: messages of QoS 1 that the broker sends before they are acknowledged.
        :raises EmqxConfigError: if paho-mqtt or the address is missing.
        :raises EmqxAuthError: if the broker does not let the account in.
        :raises EmqxConnectionError: if the broker cannot be reached, or a connection has broken.
        """
        from secrets import token_hex

        from airflow_provider_emqx.transport.mqtt import MqttClient

        settings = (await self.async_settings()).mqtt
        if settings is None:
            raise EmqxConfigError(
                f"connection {self.emqx_conn_id!r} has no MQTT address; set it, such as mqtts://host:8883"
            )
        name = f"airflow-{token_hex(8)}" if clientid is None else clientid
        async with MqttClient(
            settings,
            name,
            clean_start=clean_start,
            session_expiry=session_expiry,
            receive_maximum=receive_maximum,
        ) as client:
            yield client

    @property
    def api_version(self) -> str:
        """Generation of the broker's API: ``"v4"`` or ``"v5"``."""
        return self.broker.generation

    @property
    def emqx_version(self) -> str | None:
        """Version of the broker, such as ``"5.8.9"``, or ``None`` if the API key cannot read it."""
        return self.broker.version_text or None

    # ------------------------------------------------------------------ connection test and raw requests

    def test_connection(self) -> tuple[bool, str]:
        """
        Return one line with the broker's version or the error, and the same for its MQTT listener if the connection
        names one. Takes 10 s at most for each and never retries.

        :return: whether the connection works, and the lines.
        """
        from airflow_provider_emqx.hooks.probe import probe, probe_mqtt

        works, lines = True, []
        for look in (probe, probe_mqtt):
            try:
                lines.append(look(self.settings))
            except AirflowException as error:
                # Airflow's own error too: connection not found
                works = False
                lines.append(str(error))
        return works, "\n".join(dict.fromkeys(filter(None, lines)))

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        idempotent: bool | None = None,
    ) -> Any:
        """
        Send any request to the API, with the connection's authentication, retries, errors and care for secrets.

        :param method: HTTP method.
        :param path: below the API's base path, beginning with ``/``; ids in it percent-encoded
            (``urllib.parse.quote(id, safe="")``), no query.
        :param params: query parameters.
        :param json: body.
        :param idempotent: whether sending it twice does no harm, so that it may be repeated after a lost answer; by
            default everything but POST.
        :return: the answer's content, without EMQX 4's ``code``; with ``{"data", "meta"}`` where it is a page.
        :raises EmqxConfigError: for a path with empty or dot segments, which the broker would take for another one.
        :raises EmqxOutcomeUnknownError: if the answer to a POST was lost and ``idempotent`` is not set.
        """
        from airflow_provider_emqx.api.base import Request
        from airflow_provider_emqx.api.raw import exchange
        from airflow_provider_emqx.arguments import boolean

        # what has no code on EMQX 4 (the shadow service), or no body on EMQX 5 (an invitation into a cluster)
        accept = (200,) if self.broker.is_v4 else (200, 202)
        verb = str(method).upper()
        repeatable = None if idempotent is None else boolean("idempotent", idempotent)
        return self.run(exchange(Request(verb, path, params, json, repeatable=repeatable, accept=accept)))

    def provision_users(
        self,
        source: Iterable[Mapping[str, Any]] | str | os.PathLike[str],
        mode: UsersMode = "upsert",
        *,
        report_path: str | os.PathLike[str] | None = None,
        format: SourceFormat | None = None,
        columns: Mapping[str, str] | None = None,
        source_options: SourceOptions | None = None,
        on_rejected: OnRejected = "report",
        max_rejected: float | str | None = None,
        dry_run: bool = False,
        scope: str | Sequence[str] | None = None,
        protect: str | Sequence[str] | None = None,
        max_deletes: float | str | None = None,
        hash_passwords: bool = False,
        pepper_conn_id: str | None = None,
        state_path: str | os.PathLike[str] | None = None,
        shard: tuple[int, int] | None = None,
        acl_rules: Sequence[Mapping[str, Any]] | None = None,
        bulk: Bulk | None = None,
        plan_path: str | os.PathLike[str] | None = None,
        plan_max_age: float | timedelta | None = None,
    ) -> Iterator[Outcome]:
        """
        Provision users in bulk and yield the outcome of every row: what
        :class:`~airflow_provider_emqx.operators.auth.EmqxProvisionUsersOperator` does, for tasks of your own.

        .. code-block:: python

            with EmqxHook() as hook:
                rejected = [row for row in hook.provision_users(rows) if row.outcome == "rejected"]

        All arguments are those of the operator.

        :param source: dicts with ``user_id``, ``password`` and, if wanted, ``is_superuser``; read as they are needed.
            Or path or URL of a file, of a directory, or with shell patterns in it.
        :param mode: ``"upsert"``, ``"create"`` (existing users stay as they are), ``"delete"``, ``"sync"`` or
            ``"prune"``; with the last two, users in ``scope`` that are not in the source follow after the rows, with
            the outcome ``"pruned"`` and the line 0, or ``"unaddressable"`` if no request can name them (``""``, ``.``,
            ``..``).
        :param report_path: path or URL of a file for the rows that were not done.
        :param format: of a file; inferred from its extension or its content by default.
        :param columns: the source's own names, where they differ.
        :param source_options: how the source is read otherwise.
        :param on_rejected: ``"fail"`` raises when all rows have their outcome and any was rejected.
        :param max_rejected: count or share; more rejected rows raise when all rows have their outcome, and keep
            ``sync`` and ``prune`` from deleting anybody.
        :param dry_run: tell what would be done, write nothing.
        :param scope: of ``sync`` and ``prune``, and required there: a pattern of user ids, in which
            ``*`` stands for any text, or a list.
        :param protect: of these modes: id or pattern, or a list of them, of users that are never deleted.
        :param max_deletes: of these modes: a count or a share; if more are to be deleted, none is. By default a tenth
            of the users in scope, or 100 if that is more.
        :param hash_passwords: hash plain passwords here instead of in the broker (EMQX 5.7 and newer).
        :param pepper_conn_id: Airflow connection whose password is the pepper of the salts and of ``state_path``.
        :param state_path: path or URL of a file that remembers what was written.
        :param shard: ``(number, of)``: do this part of the rows only.
        :param acl_rules: rules that all clients are to have.
        :param bulk: ``"archive"`` writes and deletes users by archives that the broker imports.
        :param plan_path: path or URL of a plan, which ``dry_run`` writes, and which is carried out without.
        :param plan_max_age: seconds, or a ``timedelta``, after which the plan is no longer carried out.
        :return: an iterator over ``(line, user_id, outcome, reason, file)``; the work is done as it is advanced.
        :raises EmqxConfigError: for invalid arguments, before anything is sent; if ``max_deletes`` is
            exceeded; and as ``on_rejected`` and ``max_rejected`` say.
        :raises EmqxError: if the broker fails, after the outcomes of the rows that were done before.
        """
        from airflow_provider_emqx.plans.job import Asked
        from airflow_provider_emqx.provisioning.blocks import Format
        from airflow_provider_emqx.provisioning.hashing import pepper_of
        from airflow_provider_emqx.provisioning.sources import read_source
        from airflow_provider_emqx.provisioning.target import Target
        from airflow_provider_emqx.provisioning.task import Provisioning, job_of
        from airflow_provider_emqx.provisioning.terms import IDS_ONLY, UserTerms

        terms = UserTerms.of(
            mode=mode,
            dry_run=dry_run,
            report_path=report_path,
            on_rejected=on_rejected,
            max_rejected=max_rejected,
            scope=scope,
            protect=protect,
            max_deletes=max_deletes,
            hash_passwords=hash_passwords,
            pepper=pepper_of(pepper_conn_id),
            state_path=state_path,
            shard=shard,
            acl_rules=acl_rules,
            bulk=bulk,
        )
        how = Format.of(format, columns, source_options, ids_only=terms.mode in IDS_ONLY, target=Target(self))
        given = read_source(source, how)
        job = job_of(Asked.of(plan_path, terms.dry_run, plan_max_age), self, given, how, terms)
        return Provisioning(self, given, terms, job=job).outcomes()
