"""A dict that remembers the order of its keys: big listings are served page by page without sorting each time."""

from __future__ import annotations

from typing import Any, TypeVar

V = TypeVar("V")


def term_order(key: object) -> tuple[bool, Any]:
    """Order keys as Erlang does: numbers before texts."""
    return isinstance(key, str), key


class Table(dict[Any, V]):
    """A table of the broker, listed in descending order of its keys (what EMQX's ordered tables come to)."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[Any] | None = None

    def descending(self) -> list[Any]:
        """Return all keys, the greatest first."""
        if self._keys is None:
            try:
                self._keys = sorted(self, reverse=True)
            except TypeError:
                self._keys = sorted(self, key=term_order, reverse=True)
        return self._keys

    def __setitem__(self, key: Any, value: V) -> None:
        self._keys = None
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self._keys = None
        super().__delitem__(key)

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove a row and return it."""
        self._keys = None
        return super().pop(key, *default)

    def clear(self) -> None:
        """Remove all rows."""
        self._keys = None
        super().clear()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return a row, after adding it if it was not there."""
        self._keys = None
        return super().setdefault(key, default)

    def update(self, *args: Any, **kwargs: V) -> None:
        """Add or replace rows."""
        self._keys = None
        super().update(*args, **kwargs)
