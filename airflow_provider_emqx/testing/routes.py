"""Routes: which handler serves a method and a path, on which version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_emqx.testing.http import Answer

if TYPE_CHECKING:
    from airflow_provider_emqx.testing.state import State

Handler = Callable[..., Answer]
Gate = Callable[["State"], bool]


def since(*version: int) -> Gate:
    """Serve a route from this version on."""
    return lambda state: state.version >= version


def until(*version: int) -> Gate:
    """Serve a route below this version only."""
    return lambda state: state.version < version


def has_auth_plugin(state: State) -> bool:
    """Serve a route while the plugin ``emqx_auth_mnesia`` of 4.4 is loaded."""
    return state.auth_plugin


class Route(NamedTuple):
    """One line of the table of routes.

    :param method: HTTP method.
    :param pattern: Path below the API base; ``{name}`` stands for one segment, passed to the handler by position.
    :param handler: Called with the state, the request and the segments.
    :param gate: Tells whether a broker serves this route at all.
    :param serverless: EMQX Cloud Serverless serves it too.
    :param public: Served without credentials.
    """

    method: str
    pattern: str
    handler: Handler
    gate: Gate | None = None
    serverless: bool = False
    public: bool = False


class Node:
    """One segment of the tree of routes."""

    __slots__ = ("any", "literal", "methods")

    def __init__(self) -> None:
        self.literal: dict[str, Node] = {}
        self.any: Node | None = None
        self.methods: dict[str, Route] = {}


class Router:
    """Finds the route of a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = list(routes)
        self._root = Node()
        for route in self.routes:
            node = self._root
            for segment in filter(None, route.pattern.split("/")):
                if segment.startswith("{"):
                    node.any = node.any or Node()
                    node = node.any
                else:
                    node = node.literal.setdefault(segment, Node())
            node.methods[route.method] = route

    def find(self, segments: list[str]) -> tuple[dict[str, Route], list[Any]] | None:
        """Return the methods of a path with the values of its variable segments, or ``None``.

        :param segments: Decoded segments below the API base.
        """
        return self._find(self._root, segments, 0, [])

    def _find(
        self, node: Node, segments: list[str], at: int, values: list[Any]
    ) -> tuple[dict[str, Route], list[Any]] | None:
        while at < len(segments):
            segment = segments[at]
            at += 1
            literal = node.literal.get(segment)
            if literal is None:
                if node.any is None:
                    return None
                values.append(segment)
                node = node.any
            elif node.any is None:
                node = literal
            else:  # both could lead somewhere: a literal wins where it does
                found = self._find(literal, segments, at, list(values))
                if found:
                    return found
                values.append(segment)
                node = node.any
        return (node.methods, values) if node.methods else None
