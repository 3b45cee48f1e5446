"""From a request to an answer: path, credentials, rights, body, route, in the order of each generation."""

from __future__ import annotations

import base64
import binascii
import logging
from collections import deque
from collections.abc import Callable

from airflow_provider_emqx.testing.http import (
    JSON,
    Answer,
    Crash,
    HttpError,
    Request,
    json_answer,
    text_answer,
)
from airflow_provider_emqx.testing.routes import Route, Router
from airflow_provider_emqx.testing.state import ApiKey, State
from airflow_provider_emqx.testing.v4 import acl as v4_acl
from airflow_provider_emqx.testing.v4 import backups as v4_backups
from airflow_provider_emqx.testing.v4 import bans as v4_bans
from airflow_provider_emqx.testing.v4 import clients as v4_clients
from airflow_provider_emqx.testing.v4 import cluster as v4_cluster
from airflow_provider_emqx.testing.v4 import rebalance as v4_rebalance
from airflow_provider_emqx.testing.v4 import replies as v4
from airflow_provider_emqx.testing.v4 import rules as v4_rules
from airflow_provider_emqx.testing.v4 import topics as v4_topics
from airflow_provider_emqx.testing.v4 import users as v4_users
from airflow_provider_emqx.testing.v5 import acl as v5_acl
from airflow_provider_emqx.testing.v5 import backups as v5_backups
from airflow_provider_emqx.testing.v5 import bans as v5_bans
from airflow_provider_emqx.testing.v5 import clients as v5_clients
from airflow_provider_emqx.testing.v5 import cluster as v5_cluster
from airflow_provider_emqx.testing.v5 import namespaces as v5_namespaces
from airflow_provider_emqx.testing.v5 import rebalance as v5_rebalance
from airflow_provider_emqx.testing.v5 import replies as v5
from airflow_provider_emqx.testing.v5 import rules as v5_rules
from airflow_provider_emqx.testing.v5 import stored as v5_stored
from airflow_provider_emqx.testing.v5 import topics as v5_topics
from airflow_provider_emqx.testing.v5 import users as v5_users

log = logging.getLogger(__name__)

#: What one read of the real server takes in; a longer body never arrives whole.
MAX_BODY = 8_000_000
#: Requests per second that EMQX Cloud Serverless documents.
SERVERLESS_RATE = 10

ROUTES_V4 = [
    *v4_clients.ROUTES,
    *v4_topics.ROUTES,
    *v4_users.ROUTES,
    *v4_acl.ROUTES,
    *v4_bans.ROUTES,
    *v4_cluster.ROUTES,
    *v4_rules.ROUTES,
    *v4_backups.ROUTES,
    *v4_rebalance.ROUTES,
]
ROUTES_V5 = [
    *v5_clients.ROUTES,
    *v5_topics.ROUTES,
    *v5_stored.ROUTES,
    *v5_users.ROUTES,
    *v5_namespaces.ROUTES,
    *v5_acl.ROUTES,
    *v5_bans.ROUTES,
    *v5_cluster.ROUTES,
    *v5_rules.ROUTES,
    *v5_backups.ROUTES,
    *v5_rebalance.ROUTES,
]


class Dispatcher:
    """Serves the requests of one broker, without any socket.

    :param state: The broker.
    :param base_path: Path of the API.
    :param rate_limit: Calls per second beyond which 429 is answered; ``None``: never, as EMQX itself.
    """

    def __init__(self, state: State, base_path: str, rate_limit: float | None) -> None:
        self.state = state
        self.base_path = base_path
        self.rate_limit = rate_limit
        self._calls: deque[float] = deque()
        table = ROUTES_V4 if state.generation == "v4" else ROUTES_V5
        served = [
            route
            for route in table
            if (route.gate is None or route.gate(state)) and (route.serverless or not state.serverless)
        ]
        state.routes = served
        self._router = Router(served)
        self._base = base_path.strip("/").split("/")
        self._keys: dict[str, ApiKey] = {}  # Authorization headers that were right
        self.serve: Callable[[Request], Answer] = (
            self._serve_v4 if state.generation == "v4" else self._serve_v5
        )

    def forget_keys(self) -> None:
        """Look up credentials again: keys were added, changed or removed."""
        self._keys.clear()

    def answer(self, request: Request) -> Answer:
        """Answer one request; nothing is raised."""
        try:
            self.state.tick()
            limited = self._limit()
            return limited if limited is not None else self.serve(request)
        except HttpError as refused:
            return refused.answer
        except Crash as crash:
            return self._crashed(str(crash))
        except Exception as error:
            log.exception("FakeEmqx failed on %s %s", request.method, request.path)
            return self._crashed(f"{type(error).__name__}")

    def _crashed(self, message: str) -> Answer:
        if self.state.generation == "v4":
            return text_answer(500, "Internal Error")
        return json_answer(500, {"code": "INTERNAL_ERROR", "message": f"error, {message}, []"})

    def _limit(self) -> Answer | None:
        if self.rate_limit is None:
            return None
        now = self.state.now()
        while self._calls and self._calls[0] <= now - 1:
            self._calls.popleft()
        if len(self._calls) >= self.rate_limit:
            answer = json_answer(429, {"code": "TOO_MANY_REQUESTS", "message": "Too many requests"})
            answer.headers = {"Retry-After": "1"}
            return answer
        self._calls.append(now)
        return None

    def _key(self, request: Request) -> ApiKey | None:
        """Return the key of a request if its credentials are right."""
        header = request.headers.get("Authorization", "")
        found = self._keys.get(header)
        if found is None and header.startswith("Basic "):
            try:
                name, _, secret = base64.b64decode(header[6:], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            key = self.state.keys.get(name)
            if key is not None and key.secret == secret:
                self._keys[header] = found = key
        return None if found is None or found.expired else found

    # v4

    def _serve_v4(self, request: Request) -> Answer:
        try:
            segments = v4.split_path(request.path)
        except ValueError:
            raise Crash("badarg") from None
        if segments == ["status"]:
            return v4_cluster.get_status(self.state, request)
        if segments[: len(self._base)] != self._base:
            return Answer(404)
        found = self._router.find(segments[len(self._base) :])
        route = found[0].get(request.method) if found else None
        if len(request.body) > MAX_BODY:
            return text_answer(400, "Bad Request")
        if route is not None and route.public:
            return route.handler(self.state, request)
        key = self._key(request)
        if key is None:
            answer = text_answer(401, "UNAUTHORIZED", None)
            answer.headers = {"WWW-Authenticate": 'Basic Realm="minirest-server"'}
            return answer
        if found is None or route is None:
            return v4.not_found()
        request.key = key
        if request.body:
            v4.read_json(request)
        return route.handler(self.state, request, *found[1])

    # v5

    def _serve_v5(self, request: Request) -> Answer:
        try:
            segments = v5.split_path(request.path)
        except ValueError:
            return Answer(400)
        state = self.state
        if segments == ["status"] and not state.serverless and state.now() >= state.routes_at:
            return v5_cluster.get_status(state, request)
        if segments[: len(self._base)] != self._base:
            return v5.not_found_page(request)
        found = self._router.find(segments[len(self._base) :])
        if found is None or state.now() < state.routes_at:
            return v5.not_found_page(request)
        methods, values = found
        route = methods.get(request.method)
        if route is None:
            return Answer(405, headers={"Allow": ", ".join(sorted(methods))})
        if not route.public:
            request.key = self._authorize(request, route)
        if request.body:
            if len(request.body) > MAX_BODY and not _reads_in_a_loop(state, request):
                return Answer(500)
            _check_content_type(request, route)
        if state.now() < state.databases_at:
            _refuse_before_databases(route)
        request.route = route.pattern
        return route.handler(state, request, *values)

    def _authorize(self, request: Request, route: Route) -> ApiKey:
        key = self._key(request)
        if key is None:
            header = request.headers.get("Authorization", "")
            if header.startswith("Basic "):
                raise v5.error(401, "BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
            if header.startswith("Bearer "):
                raise v5.error(401, "BAD_TOKEN", "Get a token by POST /login")
            message = (
                "Missing authorization header. Use Basic auth with API key/secret, or Bearer token from POST "
                "/api/v5/login. API keys can be bootstrapped from config (api_key.bootstrap_file) or created via "
                "POST /api/v5/api_key"
                if self.state.at_least(6, 3)
                else "Support authorization: basic/bearer "
            )
            raise v5.error(401, "AUTHORIZATION_HEADER_ERROR", message)
        if key.role == "viewer":
            allowed = request.method == "GET"
        elif key.role == "publisher":
            allowed = route.pattern in {"/publish", "/publish/bulk"}
        else:
            allowed = key.allow is None or key.allow(request.method, route.pattern)
        if not allowed:
            message = "You don't have permission to access this resource"
            raise v5.error(403, "UNAUTHORIZED_ROLE", message)
        return key


#: how the crash begins that EMQX 5.8.9 tells while it boots
_UNKNOWN_SOURCE = (
    'throw, {unknown_authz_source_type,<<"built_in_database">>}, [{emqx_authz_source_registry,get,1,[]}]'
)


def _refuse_before_databases(route: Route) -> None:
    """Answer as EMQX 5 does when its routes are set up and its built-in databases are not yet."""
    if route.pattern.startswith("/authentication/{id}/users"):
        raise v5.bad_request("User error: not_initialized")
    if route.pattern == "/authentication/{id}/import_users":
        raise v5.bad_request("not_initialized")
    if route.pattern.startswith("/authorization/sources/built_in_database/rules"):
        raise HttpError(Answer(500))
    if (route.method, route.pattern) == ("GET", "/authorization/sources"):
        raise v5.error(500, "INTERNAL_ERROR", _UNKNOWN_SOURCE)


def _check_content_type(request: Request, route: Route) -> None:
    content_type = request.headers.get("Content-Type", "")
    if content_type.startswith("multipart/form-data") and route.pattern.endswith(
        ("/import_users", "/data/files")
    ):
        return
    if not content_type.startswith(JSON):
        raise v5.error(415, "UNSUPPORTED_MEDIA_TYPE", "content-type:application/json Required")
    if not route.pattern.endswith("/import_users"):  # that one decodes its rows itself, once
        v5.read_json(request)


def _reads_in_a_loop(state: State, request: Request) -> bool:
    multipart = request.headers.get("Content-Type", "").startswith("multipart/form-data")
    return multipart or state.at_least(5, 10, 1)
