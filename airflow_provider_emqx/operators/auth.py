"""Operators for users of the built-in database, ACL rules and bans."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_emqx.arguments import boolean, optional, texts
from airflow_provider_emqx.hidden import is_literal
from airflow_provider_emqx.operators.acl import EmqxProvisionAclOperator as EmqxProvisionAclOperator
from airflow_provider_emqx.operators.bans import EmqxBanOperator as EmqxBanOperator
from airflow_provider_emqx.operators.bans import EmqxUnbanOperator as EmqxUnbanOperator
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.operators.sourced import BaseProvisionOperator
from airflow_provider_emqx.results import keep_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.choices import Bulk, Rendered, UserIdType, UsersMode
    from airflow_provider_emqx.keywords import EmqxOperatorKeywords, ProvisionKeywords
    from airflow_provider_emqx.provisioning.blocks import Format
    from airflow_provider_emqx.provisioning.target import Target
    from airflow_provider_emqx.results import ExportUsersResult, ProvisionUsersResult


class EmqxProvisionUsersOperator(BaseProvisionOperator):
    """
    Create or update users in the broker's built-in database from a file or a list.

    Every row gets one outcome: ``written``, ``deleted``, ``skipped`` or ``rejected``; the totals are verified. An
    invalid row is rejected with a reason, and the others are processed. Running it again over the same source
    converges, without lost or duplicated users.

    Uses v5 ``POST /authentication/{id}/import_users`` on EMQX 5.7 and newer, single ``POST`` and ``PUT`` before; v4
    ``POST /auth_username`` or ``/auth_clientid`` with an array, then one ``PUT`` for each user that existed.

    :param source: path or URL of a file (whatever Airflow's ObjectStoragePath opens), of a directory, or with shell
        patterns in it: then all those files are read, in the order of their names; or a list of dicts
        ``{"user_id", "password", "is_superuser"}``, also from XCom. XCom keeps passwords in clear in Airflow's
        database: prefer a file. Rows without ``is_superuser`` create regular users.
    :param mode: ``"upsert"`` creates or updates users; ``"create"`` leaves existing users unchanged
        (``skipped``); ``"delete"`` deletes the users named by ``user_id`` and needs no password; ``"sync"`` is
        ``upsert``, and then deletes the users in ``scope`` that are not in the source (``pruned``); ``"prune"`` does
        only the latter, after shards have done the former. A user created between the listing and the write of
        ``create`` is overwritten on EMQX 5.7 and newer.
    :param columns: names of the source's columns, if they differ: ``{"user_id": "device", "password": "key"}``; for
        JSON also dotted, such as ``"auth.secret"``, for nested objects.
    :param scope: of ``sync`` and ``prune``, and required there: a pattern, or a list, of the user ids to synchronize;
        ``*`` stands for any text: ``"sensor-*"``, ``"*"`` for all. Other users are never deleted.
    :param protect: of these modes: id or pattern, or a list of them, of users that are never deleted. Superusers
        never are. In a list, ``""`` is the user of the empty id.
    :param max_deletes: of these modes: how many users may be deleted, a count or a share of the users that were in
        scope; if more would be, none is deleted and the task fails. Default: a tenth of them, or 100 if that is more.
    :param hash_passwords: hash plain passwords in the task instead of in the broker, with the algorithm that the
        authenticator uses and a salt that is the same in every run: then EMQX 5.8.2 and newer leaves unchanged users
        alone (``unchanged``). EMQX 5.7 and newer.
    :param pepper_conn_id: Airflow connection whose password is the pepper, from which salts and the digests of
        ``state_path`` are derived: a long secret that stays the same.
    :param state_path: path or URL of a file with digests of what was written. Rows that it contains, and whose
        users the broker still has, are not sent again (``unchanged``). For brokers that hash themselves, such as
        EMQX 4. It belongs to one broker and is created by the first run. It does not notice changes by other programs.
        After a killed run it is empty: the next run sends all rows.
    :param shard: ``(number, of)``, as ``(0, 4)`` to ``(3, 4)``: process this share of the rows only. With
        ``.partial().expand(shard=[(0, 4), (1, 4), (2, 4), (3, 4)])`` several workers share reading and hashing. Each
        needs a ``report_path`` and a ``state_path`` of its own.
    :param acl_rules: rules for all clients, as ``[{"topic": "devices/${username}/#", "permission": "allow"}]``: they
        are inserted before the existing rules for all clients, unless they are there. A column ``acl`` of the source, a
        list of rules or the same as JSON text, replaces the rules of that user alone, before the user is written;
        deleting users leaves their rules.
    :param bulk: ``"archive"`` reads the broker's users from one export, compares them with the source, and imports the
        differences as archives of up to 100,000 changes: far faster where many are deleted or few have changed, for
        any salt, and with an exact dry run. Plain passwords are hashed in the task. It needs EMQX 5.8 or newer, not in
        EMQX Cloud, and the API key of a global administrator without explicit scopes. By default users travel in the
        requests that the API has for them.
    :param user_id_type: ``"username"`` or ``"clientid"``: the table of users on EMQX 4. On EMQX 5 and newer the
        authenticator decides, and a value that differs from it is refused.
    :return: ``{"read", "written", "deleted", "skipped", "rejected", "created", "updated", "unchanged", "pruned",
        "unaddressable", "not_carried", "seconds", "rows_per_second", "phases", "limited_by", "chunks", "acl_changed",
        "listing_moved", "dry_run", "report_path", "plan", "reasons", "guards", "rejected_rows", "unread"}``.
        ``unaddressable`` are users in scope that are not in the source but stay, since their id cannot be part of a
        request; ``not_carried`` rejected rows whose salt an import of users cannot carry. ``limited_by`` is what took
        most of the time: ``"broker"``, ``"hashing"`` or ``"reading"``. ``unread`` names the first 100 directories and
        files beside those of a directory that are not read. ``created``, ``updated`` and ``unchanged`` are ``None``
        if the broker does not report it. It is pushed to XCom also if the task fails because of rejected rows or a
        truncated source.
    :raises EmqxConfigError: if the source cannot be read or too many rows are rejected.
    :raises EmqxError: if the broker fails; rows before that are done, and running again converges.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {
        **BaseProvisionOperator.template_fields_renderers,
        "acl_rules": "json",
    }
    template_fields: Sequence[str] = (
        "scope",
        "protect",
        "max_deletes",
        "hash_passwords",
        "pepper_conn_id",
        "state_path",
        "shard",
        "acl_rules",
        "bulk",
        "user_id_type",
        *BaseProvisionOperator.template_fields,
    )

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | XComArg,
        mode: UsersMode | Rendered = "upsert",
        scope: str | list[str] | XComArg | None = None,
        protect: str | list[str] | XComArg | None = None,
        max_deletes: float | str | XComArg | None = None,
        hash_passwords: bool | str | XComArg = False,
        pepper_conn_id: str | XComArg | None = None,
        state_path: str | os.PathLike[str] | XComArg | None = None,
        shard: tuple[int, int] | list[int] | str | XComArg | None = None,
        acl_rules: list[dict[str, Any]] | XComArg | None = None,
        bulk: Bulk | Rendered | None = None,
        user_id_type: UserIdType | Rendered | None = None,
        **kwargs: Unpack[ProvisionKeywords],
    ) -> None:
        super().__init__(source=source, mode=mode, **kwargs)
        self.scope = scope
        self.protect = protect
        self.max_deletes = max_deletes
        self.hash_passwords = hash_passwords
        self.pepper_conn_id: Any = pepper_conn_id
        self.state_path = state_path
        self.shard = shard
        self.acl_rules = acl_rules
        self.bulk: Any = bulk
        self.user_id_type: Any = user_id_type
        self.check_literals()

    def check_literals(self) -> None:
        """Refuse invalid arguments; assume the best of those that are known only when the task runs."""
        from airflow_provider_emqx.provisioning.terms import UserTerms

        deleting = any((self.scope, self.protect, self.max_deletes))
        fitting: dict[str, Any] = {
            **dict.fromkeys(self._arguments()),
            "mode": "sync" if deleting else "upsert",
            "dry_run": False,
            "on_rejected": "report",
            "scope": "*",
            "hash_passwords": False,
        }
        known = {
            name: value if is_literal(value) else fitting[name] for name, value in self._arguments().items()
        }
        UserTerms.of(pepper="x" if self.pepper_conn_id else "", **known)
        self._check_format()

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments that are terms, besides the pepper."""
        return {
            "mode": self.mode,
            "dry_run": self.plan_only,
            "report_path": self.report_path,
            "on_rejected": self.on_rejected,
            "max_rejected": self.max_rejected,
            "scope": self.scope,
            "protect": self.protect,
            "max_deletes": self.max_deletes,
            "hash_passwords": self.hash_passwords,
            "state_path": self.state_path,
            "shard": self.shard,
            "acl_rules": self.acl_rules,
            "bulk": self.bulk,
        }

    def dashboard_page(self) -> str:
        """Return the page of the users."""
        return "authentication/detail/{authenticator}?tab=users"

    def execute(self, context: Context) -> ProvisionUsersResult:
        """Provision the source."""
        from airflow_provider_emqx.provisioning.hashing import pepper_of
        from airflow_provider_emqx.provisioning.progress import Progress, fingerprint
        from airflow_provider_emqx.provisioning.target import Target
        from airflow_provider_emqx.provisioning.task import job_of, provision
        from airflow_provider_emqx.provisioning.terms import UserTerms

        terms = UserTerms.of(pepper=pepper_of(self.pepper_conn_id), **self._arguments())
        with self.hook(user_id_type=self.user_id_type or None) as hook:
            how = self._format(Target(hook))
            source = self._read(how)
            # Airflow 3.3 and newer; without it a repeated task sends everything again, which converges as well
            store: Any = context.get("task_state_store")
            keeps = store is not None and source.files and not terms.dry_run
            # a plan has an account of its own
            keeps = keeps and not self.plan_path
            mark = fingerprint(hook, source.files, how, terms) if keeps else None
            result = provision(
                hook,
                source,
                terms,
                lambda summary: keep_result(context, summary),
                Progress(store, mark) if mark else None,
                job_of(self.asked(), hook, source, how, terms),
            )
            self._announce(context, hook, "users", optional(texts, "scope", self.scope) or [], result)
        return result

    def _format(self, target: Target | None = None) -> Format:
        from airflow_provider_emqx.provisioning.blocks import Format
        from airflow_provider_emqx.provisioning.terms import IDS_ONLY

        return Format.of(
            self.format, self.columns, self.source_options, ids_only=self.mode in IDS_ONLY, target=target
        )


class EmqxExportUsersOperator(BaseEmqxOperator):
    """
    Write the users of the broker's built-in database to a file, for audits and for moves to another broker.

    Ids and superuser flags are all that EMQX lists: v5 ``GET /authentication/{id}/users`` and v4
    ``GET /auth_username`` or ``/auth_clientid``. With ``with_hashes`` the broker exports its tables to its disk,
    ``POST /data/export``, the export is downloaded into memory, and deleted from that disk whatever happens.

    :param output_path: path or URL of the file (whatever Airflow's ObjectStoragePath opens), ending in ``.csv`` or
        ``.jsonl``, each also with ``.gz``. A local file may be read by its owner only. It can be the ``source`` of
        ``mode="delete"`` and ``"prune"``, and with hashes of every mode.
    :param is_superuser: only superusers, or only the others; EMQX 4 has no superusers.
    :param with_hashes: write ``user_id``, ``password_hash``, ``salt_base64`` and ``is_superuser``: another
        broker whose authenticator hashes in the same way takes them, and devices keep their passwords. EMQX 5.4 and
        newer, with a key that may export; and EMQX 4, whose export holds API secrets too: they are not kept. Who has
        the file can try out passwords: keep it as safe as these.
    :param user_id_type: ``"username"`` or ``"clientid"``: which users of EMQX 4 are meant.
    :return: ``{"users", "superusers", "output_path", "listing_moved", "left_out", "password_hash_algorithm"}``;
        ``superusers`` is ``None`` on EMQX 4, and ``listing_moved`` says whether users came or went between two pages,
        so that some may be missing. With hashes, ``left_out`` counts users that have none that could move, as SCRAM
        users, and ``password_hash_algorithm`` says what the other authenticator needs, ``None`` on EMQX 4, where the
        plugin's configuration has it.
    :raises EmqxConfigError: if the file cannot be written.
    :raises EmqxError: if the broker fails; a local file stays as it was then, an object may be incomplete.
    """

    template_fields: Sequence[str] = (
        *BaseEmqxOperator.template_fields,
        "output_path",
        "is_superuser",
        "with_hashes",
        "user_id_type",
    )

    def __init__(
        self,
        *,
        output_path: str | os.PathLike[str] | XComArg,
        is_superuser: bool | str | XComArg | None = None,
        with_hashes: bool | str | XComArg = False,
        user_id_type: UserIdType | Rendered | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.output_path: Any = output_path
        self.is_superuser = is_superuser
        self.with_hashes = with_hashes
        self.user_id_type: Any = user_id_type
        self.check_literals()

    def check(self) -> None:
        """Refuse a file of another form."""
        from airflow_provider_emqx.row_files import form_of

        form_of("output_path", self.output_path, packed=True)
        optional(boolean, "is_superuser", self.is_superuser)
        boolean("with_hashes", self.with_hashes)

    def dashboard_page(self) -> str:
        """Return the page of the users."""
        return "authentication/detail/{authenticator}?tab=users"

    def execute(self, context: Context) -> ExportUsersResult:
        """Write the file."""
        from airflow_provider_emqx.provisioning.export import export_users

        wanted = optional(boolean, "is_superuser", self.is_superuser)
        with self.hook(user_id_type=self.user_id_type or None) as hook:
            summary = export_users(hook, self.output_path, wanted, boolean("with_hashes", self.with_hashes))
        self.log.info("%s users are in %s", f"{summary['users']:,}", summary["output_path"])
        return summary
