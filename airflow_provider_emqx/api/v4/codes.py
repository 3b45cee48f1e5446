"""Meanings of EMQX 4's result codes, for responses whose message does not explain them."""

from __future__ import annotations

MEANINGS = {
    101: "a node of the cluster did not answer",
    102: "unknown error",
    107: "a required parameter is missing",
    108: "a parameter is wrong",
    112: "the client is not online",
    115: "bad topic",
    116: "bad QoS",
}


def reason(code: int) -> str | None:
    """Return the meaning of a row's code; ``None`` for success."""
    return None if code == 0 else MEANINGS.get(code, f"code {code}")
