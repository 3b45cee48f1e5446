"""Terms of provisioning runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from airflow_provider_emqx.api.acl import read_rules
from airflow_provider_emqx.arguments import boolean, choice, limit, optional, texts
from airflow_provider_emqx.choices import Bulk, OnRejected, UsersMode
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location
from airflow_provider_emqx.patterns import one_of
from airflow_provider_emqx.provisioning.shards import Shard

#: those that delete users that are not in the source
PRUNING = ("sync", "prune")
#: those whose rows need no password
IDS_ONLY = ("delete", "prune")
#: a synchronisation may delete so many users, or this share of those in its scope, whichever is more
DELETES = 100
DELETES_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Terms:
    """
    Options for all kinds of rows.

    :param dry_run: read and check everything, write nothing.
    :param report_path: where to write the report, if anywhere.
    :param on_rejected: ``"report"`` or ``"fail"``.
    :param max_rejected: count or share of rejected rows that is accepted.
    """

    dry_run: bool = False
    report_path: Location | None = None
    on_rejected: str = "report"
    max_rejected: float | str | None = None

    def options(self) -> dict[str, Any]:
        """Return all that decides what is done, for a plan; no secrets."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value for name, value in told.items() if name not in ("dry_run", "report_path", "pepper")
        }

    def __post_init__(self) -> None:
        choice("on_rejected", self.on_rejected, get_args(OnRejected))
        limit(self.max_rejected, 1, "max_rejected")


@dataclass(frozen=True)
class UserTerms(Terms):
    """
    Terms for users.

    :param mode: one of :data:`~airflow_provider_emqx.choices.UsersMode`.
    :param scope: of ``sync`` and ``prune``: patterns of the users that the source speaks for.
    :param protect: of these: ids or patterns of users that are never deleted. ``[""]`` is the user of the empty id.
    :param max_deletes: of these: count, or share of the users in scope, that may be deleted.
    :param hash_passwords: hash plain passwords here instead of in the broker.
    :param pepper: secret of the salts and of the state file.
    :param state_path: file that remembers what was written.
    :param shard: part of the source that is meant.
    :param acl_rules: rules that all clients are to have.
    :param bulk: ``"archive"`` to write and delete users by archives that the broker imports.
    """

    mode: str = "upsert"
    scope: str | Sequence[str] | None = None
    protect: str | Sequence[str] | None = None
    max_deletes: float | str | None = None
    hash_passwords: bool = False
    pepper: str = ""
    state_path: Location | None = None
    shard: Shard | None = None
    acl_rules: Sequence[Mapping[str, Any]] = ()
    bulk: str | None = None

    @classmethod
    def of(
        cls,
        *,
        dry_run: bool | str,
        report_path: Location | None,
        hash_passwords: bool | str,
        state_path: Location | None,
        shard: Sequence[Any] | str | None,
        acl_rules: Sequence[Mapping[str, Any]] | None,
        bulk: str | None = None,
        **others: Any,
    ) -> UserTerms:
        """
        Read what a person or a template says of a run.

        :raises EmqxConfigError: for invalid arguments.
        """
        return cls(
            dry_run=boolean("dry_run", dry_run),
            report_path=report_path or None,
            hash_passwords=optional(boolean, "hash_passwords", hash_passwords) or False,
            state_path=state_path or None,
            shard=Shard.read(shard),
            acl_rules=acl_rules or (),
            bulk=bulk or None,
            **others,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("mode", self.mode, get_args(UsersMode))
        if self.bulk is not None:
            choice("bulk", self.bulk, get_args(Bulk))
        limit(self.max_deletes, 1, "max_deletes")
        scope = self._scope()
        if self.mode in PRUNING and not scope:
            raise EmqxConfigError(
                f"mode {self.mode!r} deletes users that are not in the source; set scope, a pattern of the user ids "
                "that this source speaks for, as 'sensor-*'; all users are '*'"
            )
        if self.mode not in PRUNING and (self.scope or self.protect or self.max_deletes is not None):
            raise EmqxConfigError(
                f"scope, protect and max_deletes are for the modes 'sync' and 'prune', not for {self.mode!r}"
            )
        if self.mode in PRUNING and self.shard is not None:
            raise EmqxConfigError(
                f"mode {self.mode!r} needs the whole source, not a shard: let the shards 'upsert', and after them one "
                "task 'prune'"
            )
        self.protected()
        if (self.hash_passwords or self.state_path) and not self.pepper:
            raise EmqxConfigError(
                "hash_passwords and state_path need pepper_conn_id, a connection whose password is the pepper: a long "
                "secret that stays the same"
            )
        if isinstance(self.acl_rules, str | Mapping):
            raise EmqxConfigError("acl_rules must be a list of ACL rules, each with topic and permission")
        read_rules(self.acl_rules)
        if self.state_path and self.mode not in ("upsert", "sync"):
            raise EmqxConfigError(f"state_path is for the modes 'upsert' and 'sync', not for {self.mode!r}")

    def _scope(self) -> list[str]:
        scope = optional(texts, "scope", self.scope) or []
        if "" in scope:
            raise EmqxConfigError(
                "scope must be text or a list of texts, none of them empty; all users are '*'"
            )
        if scope and not any("*" in one for one in scope):
            raise EmqxConfigError(
                f"scope {scope[0]!r} is the id of one user; write {scope[0] + '*'!r} for all that begin with it"
            )
        return scope

    def in_scope(self) -> re.Pattern[str]:
        """Return the expression whose ``fullmatch`` tells whether the source speaks for a user."""
        return one_of(self._scope())

    def part_of_all(self) -> str | None:
        """
        Return text that every id in scope has, the longest that is known; ``None`` if it does not exist.

        Of letters and what no broker could take for a pattern.
        """
        given = self._scope()
        if len(given) != 1:
            return None
        (scope,) = given
        return max(re.findall(r"[A-Za-z0-9_:@/-]+", scope), key=len, default=None)

    def protected(self) -> re.Pattern[str]:
        """Return the expression whose ``fullmatch`` tells whether a user is never deleted."""
        return one_of(texts("protect", self.protect))

    def deletes(self, in_scope: int) -> int:
        """
        Return how many users ``sync`` or ``prune`` may delete.

        :param in_scope: number of users in scope before the run.
        """
        given = limit(self.max_deletes, in_scope, "max_deletes")
        return max(DELETES, int(DELETES_SHARE * in_scope)) if given is None else given
