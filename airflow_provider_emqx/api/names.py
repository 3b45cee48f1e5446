"""MQTT topic names and topic filters: what they may look like, and which filter matches which name."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.exceptions import EmqxConfigError

_LONGEST = 65_535


def topic_name(topic: Any) -> str:
    """
    Check a topic that one message goes to or one thing is stored under.

    :param topic: text without wildcards, 1 to 65,535 bytes in UTF-8.
    :raises EmqxConfigError: for anything else.
    """
    _utf8(topic, "topic")
    if "+" in topic or "#" in topic:
        raise EmqxConfigError(
            f"topic {_shown(topic)} holds a wildcard (+ or #), but one topic is needed here"
        )
    return str(topic)


def topic_filter(text: Any) -> str:
    """
    Check a filter that a client may subscribe to, ``$share/group/…`` included.

    EMQX 5 accepts broken filters such as ``a/#/b`` without an error, and then nothing ever arrives.

    :param text: 1 to 65,535 bytes in UTF-8; ``+`` and ``#`` are levels of their own, ``#`` the last one.
    :raises EmqxConfigError: for anything else.
    """
    _utf8(text, "topic filter")
    group, plain = split_share(text)
    levels = plain.split("/")
    if group == "" or not plain or "+" in (group or "") or "#" in (group or ""):
        raise EmqxConfigError(f"{_shown(text)} is not a shared subscription; expected $share/group/topic")
    if any(level not in ("+", "#") and ("+" in level or "#" in level) for level in levels):
        raise EmqxConfigError(
            f"in topic filter {_shown(text)} a wildcard shares its level with other characters"
        )
    if "#" in levels[:-1]:
        raise EmqxConfigError(f"in topic filter {_shown(text)} the wildcard # is not the last level")
    return str(text)


def split_share(text: str) -> tuple[str | None, str]:
    """Split ``$share/group/filter`` into group and filter; the group of a plain filter is ``None``."""
    if text.startswith("$share/"):
        group, _, plain = text.removeprefix("$share/").partition("/")
        return group, plain
    if text.startswith("$queue/"):
        return "$queue", text.removeprefix("$queue/")
    return None, text


def matches(topic: str, pattern: str) -> bool:
    """
    Return whether a topic name is matched by a filter.

    Levels of ``topic`` are compared as plain words, as EMQX does where it matches a subscribed filter.
    """
    levels, patterns = topic.split("/"), pattern.split("/")
    if topic.startswith("$") and patterns[0] in ("+", "#"):
        return False
    for level, wanted in zip(levels, patterns, strict=False):
        if wanted == "#":
            return True
        if wanted not in ("+", level):
            return False
    # "a/#" also matches "a"
    return len(levels) == len(patterns) or patterns[len(levels) :] == ["#"]


def _utf8(text: Any, what: str) -> None:
    if not isinstance(text, str):
        raise EmqxConfigError(f"a {what} must be text, not {type(text).__name__}")
    if not text or "\x00" in text:
        raise EmqxConfigError(f"a {what} must not be empty or hold a null character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise EmqxConfigError(f"a {what} contains a lone surrogate, which is not valid UTF-8") from None
    if size > _LONGEST:
        raise EmqxConfigError(f"{what} {_shown(text)} has {size} bytes; MQTT allows {_LONGEST}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
