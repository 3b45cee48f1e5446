from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.archives.terms import DEEPEST, Atom, TermError, decode, encode

QUICK = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=60).filter(
    lambda name: name not in ("true", "false")
)
LEAVES = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | NAMES.map(Atom)
    | st.lists(st.integers(0, 255), max_size=5)
)
TERMS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.binary(max_size=5), inner, max_size=3)
    ),
    max_leaves=20,
)


@QUICK
@given(TERMS)
def test_what_is_written_is_read_as_it_was(term: Any) -> None:
    read = decode(encode(term))
    assert read == term
    assert repr(read) == repr(term)


# made by Erlang's term_to_binary
@pytest.mark.parametrize(
    ("data", "term"),
    [
        ("836101", 1),
        ("83620000012c", 300),
        ("8362ffffffff", -1),
        ("836e080100000000000000 80".replace(" ", ""), -(2**63)),
        ("83464009 21fb54442d18".replace(" ", ""), 3.141592653589793),
        ("836a", []),
        ("836b0003616263", [97, 98, 99]),
        ("836c000000026162620000012c6a", [98, 300]),
        ("836802770161 6d0000000162".replace(" ", ""), (Atom("a"), b"b")),
        ("837404".replace("04", "00000000"), {}),
        ("83770474727565", True),
        ("83640004616c6963", Atom("alic")),
    ],
)
def test_terms_of_erlang(data: str, term: Any) -> None:
    assert decode(bytes.fromhex(data)) == term


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_a_term_or_an_error(data: bytes) -> None:
    for given_bytes in (data, b"\x83" + data):
        with suppress(TermError):
            decode(given_bytes)


@QUICK
@given(TERMS, st.integers(0, 10_000), st.binary(max_size=3))
def test_a_term_that_is_spoilt_in_one_place_is_a_term_or_an_error(term: Any, at: int, spoiler: bytes) -> None:
    data = encode(term)
    at %= len(data)
    with suppress(TermError):
        decode(data[:at] + spoiler + data[at + 1 :])


def test_each_cut_is_an_error() -> None:
    data = encode((Atom("a"), b"b", [1, 2, 300], {b"k": -1}, 2**70, 1.5, [5]))
    for length in range(len(data)):
        with pytest.raises(TermError):
            decode(data[:length])


@pytest.mark.parametrize(
    "opening", [b"h\x01", b"i\x00\x00\x00\x01", b"l\x00\x00\x00\x01", b"t\x00\x00\x00\x01a\x01"]
)
def test_terms_that_are_nested_too_deeply_are_refused(opening: bytes) -> None:
    with pytest.raises(TermError, match=f"nested more than {DEEPEST} deep"):
        decode(b"\x83" + opening * 100_000 + b"j")


@pytest.mark.parametrize("tag", [b"l", b"i", b"t", b"m", b"o"])
def test_sizes_beyond_the_bytes_take_no_memory(tag: bytes) -> None:
    with pytest.raises(TermError):
        decode(b"\x83" + tag + struct.pack(">I", 2**32 - 1) + b"a\x01")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not begin like a term"),
        (b"\x82a\x01", "not begin like a term"),
        (b"\x83a\x01a\x01", "something follows"),
        (b"\x83P\x00\x00\x10\x00x\x9c", "unknown kind 80"),
        (b"\x83l\x00\x00\x00\x01a\x01a\x02", "something else at its end"),
        (b"\x83t\x00\x00\x00\x01l\x00\x00\x00\x01a\x01ja\x01", "a key of an unknown kind"),
        (b"\x83w\x01\xff", "not text"),
    ],
)
def test_what_is_no_term_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(TermError, match=reason):
        decode(data)


def test_what_is_no_term_is_not_written() -> None:
    for wrong in (None, object(), "text", 2 ** (8 * 256)):
        with pytest.raises(TermError):
            encode(wrong)
