"""
Erlang's external term format, as far as EMQX's tables need it.

Tuples are tuples, lists lists, maps dicts, binaries bytes, atoms :class:`Atom`; ``true`` and ``false`` are Python's.
References, functions, processes, and terms that are compressed once more, are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

Term: TypeAlias = Any

#: how deep terms may be nested: those of the tables are 8 deep at most
DEEPEST = 64

_VERSION = 131
_SMALL_INTEGER, _INTEGER, _SMALL_BIG, _FLOAT = 97, 98, 110, 70
_SMALL_TUPLE, _TUPLE, _NIL, _STRING, _LIST, _BINARY, _MAP = 104, 105, 106, 107, 108, 109, 116
_COUNTS = {_SMALL_TUPLE: 1, _TUPLE: 4, _LIST: 4, _MAP: 4}
_LONGEST_STRING = 65_535


class TermError(ValueError):
    """Not a term, or one of an unknown kind."""


class Atom(str):
    """An atom, which is a name and not a text: texts are bytes."""

    __slots__ = ()


def decode(data: bytes) -> Term:
    """
    Read one term.

    :param data: the term, and nothing else. Every size in it is held against the bytes that there are.
    :raises TermError: if it is not a term, is cut, is nested too deeply, or holds values of an unknown kind.
    """
    if data[:1] != bytes([_VERSION]):
        raise TermError("it does not begin like a term")
    try:
        return _decode(data)
    except (IndexError, struct.error):
        raise TermError("the term is cut") from None
    except UnicodeDecodeError:
        raise TermError("an atom is not text") from None
    except TypeError:
        raise TermError("a map has a key of an unknown kind") from None


def _decode(data: bytes) -> Term:
    size, at = len(data), 1
    # the container that is being filled: its tag, how many values it takes, and those so far; the outermost is for
    # the one term
    tag, count, values = 0, 1, list[Term]()
    outer: list[tuple[int, int, list[Term]]] = []
    while True:
        kind = data[at]
        read = _LEAVES.get(kind)
        if read is not None:
            value, at = read(data, at + 1)
            if at > size:
                raise IndexError
            values.append(value)
        elif kind not in _COUNTS:
            raise TermError(f"the term holds a value of the unknown kind {kind}")
        elif len(outer) >= DEEPEST:
            raise TermError(f"the term is nested more than {DEEPEST} deep")
        else:
            outer.append((tag, count, values))
            count, at = _count(kind, data, at + 1)
            tag, values = kind, []
        while len(values) == count:
            if not outer:
                return _whole(values[0], at, size)
            value, at = _filled(tag, values, data, at)
            tag, count, values = outer.pop()
            values.append(value)


def _count(tag: int, data: bytes, at: int) -> tuple[int, int]:
    """Read how many values a container takes."""
    end = at + _COUNTS[tag]
    count = int.from_bytes(data[at:end], "big") * (2 if tag == _MAP else 1)
    # a value takes a byte at least
    if count > len(data) - end:
        raise IndexError
    return count, end


def _filled(tag: int, values: list[Term], data: bytes, at: int) -> tuple[Term, int]:
    """Make the container of its values."""
    if tag == _MAP:
        return dict(zip(values[::2], values[1::2], strict=True)), at
    if tag != _LIST:
        return tuple(values), at
    if data[at] != _NIL:
        raise TermError("the term holds a list with something else at its end")
    return values, at + 1


def _binary(data: bytes, at: int) -> tuple[Term, int]:
    end = at + 4 + int.from_bytes(data[at : at + 4], "big")
    return data[at + 4 : end], end


def _atom(width: int, encoding: str, data: bytes, at: int) -> tuple[Term, int]:
    end = at + width + int.from_bytes(data[at : at + width], "big")
    name = data[at + width : end].decode(encoding)
    return _BOOLEANS.get(name, Atom(name)), end


def _big(data: bytes, at: int) -> tuple[Term, int]:
    end = at + 2 + data[at]
    value = int.from_bytes(data[at + 2 : end], "little")
    return -value if data[at + 1] else value, end


def _string(data: bytes, at: int) -> tuple[Term, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return list(data[at + 2 : end]), end


_BOOLEANS = {"true": True, "false": False}
#: what reads a value that holds no others
_LEAVES: dict[int, Callable[[bytes, int], tuple[Term, int]]] = {
    _BINARY: _binary,
    _STRING: _string,
    _NIL: lambda data, at: ([], at),
    _SMALL_INTEGER: lambda data, at: (data[at], at + 1),
    _INTEGER: lambda data, at: (struct.unpack_from(">i", data, at)[0], at + 4),
    _SMALL_BIG: _big,
    _FLOAT: lambda data, at: (struct.unpack_from(">d", data, at)[0], at + 8),
    119: partial(_atom, 1, "utf-8"),
    118: partial(_atom, 2, "utf-8"),
    115: partial(_atom, 1, "latin-1"),
    100: partial(_atom, 2, "latin-1"),
}


def _whole(value: Term, at: int, size: int) -> Term:
    if at != size:
        raise TermError("something follows the term")
    return value


def encode(term: Term, latin: bool = False) -> bytes:
    """
    Write one term, as Erlang does it.

    :param term: of what :func:`decode` gives.
    :param latin: write atoms as Erlang 25 and older do, which EMQX 5 runs on.
    :raises TermError: if it holds anything else.
    """
    return bytes([_VERSION]) + _encode(term, _latin_atom if latin else _text_atom)


def _text_atom(name: str) -> bytes:
    data = name.encode()
    return (bytes([119, len(data)]) if len(data) < 256 else struct.pack(">BH", 118, len(data))) + data


def _latin_atom(name: str) -> bytes:
    try:
        data = name.encode("latin-1")
    except UnicodeEncodeError:
        return _text_atom(name)
    return struct.pack(">BH", 100, len(data)) + data


def _encode(term: Term, atom: Callable[[str], bytes]) -> bytes:
    if isinstance(term, bool):
        return atom(str(term).lower())
    if isinstance(term, Atom):
        return atom(term)
    if isinstance(term, bytes):
        return struct.pack(">BI", _BINARY, len(term)) + term
    if isinstance(term, int):
        return _integer(term)
    if isinstance(term, float):
        return struct.pack(">Bd", _FLOAT, term)
    if isinstance(term, tuple):
        head = struct.pack(">BB" if len(term) < 256 else ">BI", _SMALL_TUPLE + (len(term) > 255), len(term))
        return head + b"".join(_encode(one, atom) for one in term)
    if isinstance(term, list):
        return _list(term, atom)
    if isinstance(term, dict):
        pairs = b"".join(_encode(one, atom) for pair in term.items() for one in pair)
        return struct.pack(">BI", _MAP, len(term)) + pairs
    raise TermError(f"{type(term).__name__} is not a term")


def _integer(number: int) -> bytes:
    if 0 <= number < 256:
        return bytes([_SMALL_INTEGER, number])
    if -(1 << 31) <= number < 1 << 31:
        return struct.pack(">Bi", _INTEGER, number)
    digits = abs(number).to_bytes((number.bit_length() + 7) // 8, "little")
    if len(digits) > 255:
        raise TermError("the number has too many digits")
    return bytes([_SMALL_BIG, len(digits), number < 0]) + digits


def _list(values: list[Term], atom: Callable[[str], bytes]) -> bytes:
    if not values:
        return bytes([_NIL])
    if len(values) <= _LONGEST_STRING and all(type(one) is int and 0 <= one < 256 for one in values):
        return struct.pack(">BH", _STRING, len(values)) + bytes(values)
    return (
        struct.pack(">BI", _LIST, len(values))
        + b"".join(_encode(one, atom) for one in values)
        + bytes([_NIL])
    )


def is_text(data: bytes) -> bool:
    """Return whether bytes are valid UTF-8."""
    return data.decode(errors="ignore").encode() == data
