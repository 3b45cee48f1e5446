"""API v4, users: ``/auth_username`` and ``/auth_clientid`` of the plugin ``emqx_auth_mnesia``."""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Crash, Request, json_answer
from airflow_provider_emqx.testing.passwords import User
from airflow_provider_emqx.testing.routes import Route, has_auth_plugin
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.tables import Table
from airflow_provider_emqx.testing.v4.replies import (
    data,
    done,
    message_only,
    page_args,
    read_array,
    read_json,
    read_object,
)

#: Seconds of the broker's time per user listed.
LISTED_USER_COST = 12e-6


def _row(kind: str, user_id: str, user: User) -> dict[str, Any]:
    return {kind: user_id, "created_at": user.created_at}


def list_users(kind: str, state: State, request: Request) -> Answer:
    """``GET /auth_…``: pages in the order of the table, each sorted by itself, the newest first."""
    users = state.v4_users[kind]
    ids = list(users)
    exact, part = request.arg(kind), request.arg(f"_like_{kind}")
    if exact is not None:
        ids = [exact] if exact in users else []
    if part is not None:
        ids = [user_id for user_id in ids if part in user_id]
    page, limit = page_args(request)
    shown = ids[(page - 1) * limit : page * limit]
    shown.sort(key=lambda user_id: users[user_id].created_at, reverse=True)
    meta = {
        "page": page,
        "limit": limit,
        "hasnext": page * limit < len(ids),
        "count": len(ids) if exact is None and part is None else -1,
    }
    rows = [_row(kind, user_id, users[user_id]) for user_id in shown]
    answer = json_answer(200, {"meta": meta, "data": rows, "code": 0})
    answer.read = len(shown) * LISTED_USER_COST
    return answer


def get_user(kind: str, state: State, request: Request, user_id: str) -> Answer:
    """``GET /auth_…/{id}``: an empty object for an unknown user."""
    user = state.v4_users[kind].get(user_id)
    return data(_row(kind, user_id, user) if user else {})


def create_users(kind: str, state: State, request: Request) -> Answer:
    """``POST /auth_…``: one object, or an array."""
    body = read_json(request)
    users = state.v4_users[kind]
    now = int(state.now() * 1000)
    if isinstance(body, list):
        if request.query:  # parameters are put in front of the rows
            raise Crash("badarg")
        return _create_many(kind, users, read_array(request), now)
    if not isinstance(body, dict):
        raise Crash("function_clause")
    outcome = _create(users, body.get(kind), body.get("password"), now)
    if outcome != "ok":
        raise message_only(outcome)
    return done()


def _create(users: Table[User], user_id: Any, password: Any, now: int) -> str:
    if not isinstance(user_id, str) or not user_id:
        return "login"
    if not isinstance(password, str) or not password:
        return "password"
    if user_id in users:
        return "existed"
    users[user_id] = User(password, False, now)
    return "ok"


def _create_many(kind: str, users: Table[User], rows: list[dict[str, Any]], now: int) -> Answer:
    """One result per **name**: of two rows with one name the first one's result is what shows."""
    results: dict[str, str] = {}
    new: dict[str, User] = {}
    for row in rows:
        user_id, password = row.get(kind), row.get("password")
        if user_id.__class__ is not str or not user_id:
            results.setdefault("undefined" if user_id is None else str(user_id), "{error,login}")
        elif password.__class__ is not str or not password:
            results.setdefault(user_id, "{error,password}")
        elif user_id in users or user_id in new:
            results.setdefault(user_id, "{error,existed}")
        else:
            new[user_id] = User(password, False, now)
            results.setdefault(user_id, "ok")
    users.update(new)
    answer = data(results)
    answer.written = len(rows)
    return answer


def update_user(kind: str, state: State, request: Request, user_id: str) -> Answer:
    """``PUT /auth_…/{id}``."""
    password = read_object(request).get("password")
    if not isinstance(password, str) or not password:
        raise message_only("password")
    user = state.v4_users[kind].get(user_id)
    if user is None:
        raise message_only("noexisted")
    user.password = password
    return done()


def delete_user(kind: str, state: State, request: Request, user_id: str) -> Answer:
    """``DELETE /auth_…/{id}``: code 0 also for an unknown user."""
    state.v4_users[kind].pop(user_id, None)
    return done()


def _routes(kind: str) -> list[Route]:
    base, one = f"/auth_{kind}", f"/auth_{kind}/{{id}}"
    return [
        Route("GET", base, partial(list_users, kind), has_auth_plugin),
        Route("POST", base, partial(create_users, kind), has_auth_plugin),
        Route("GET", one, partial(get_user, kind), has_auth_plugin),
        Route("PUT", one, partial(update_user, kind), has_auth_plugin),
        Route("DELETE", one, partial(delete_user, kind), has_auth_plugin),
    ]


ROUTES = [*_routes("username"), *_routes("clientid")]
