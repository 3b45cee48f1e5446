"""Topic names and filters."""

from __future__ import annotations


def matches(topic: str, topic_filter: str) -> bool:
    """Return whether a topic (or, as EMQX's listings use it, a subscribed filter) is matched by a filter."""
    if topic == topic_filter:
        return True
    if topic.startswith("$") and topic_filter[:1] in {"+", "#"}:
        return False
    words, pattern = topic.split("/"), topic_filter.split("/")
    for position, word in enumerate(pattern):
        if word == "#":
            return True
        if position >= len(words) or word not in {"+", words[position]}:
            return False
    return len(words) == len(pattern)


def has_wildcard(topic: str) -> bool:
    """Return whether a text is a filter rather than a topic name."""
    return any(word in {"+", "#"} for word in topic.split("/"))


def valid_topic_name(topic: str) -> bool:
    """Return whether one can publish to this topic."""
    return 0 < len(topic.encode("utf-8", "surrogateescape")) <= 65535 and not (
        set(topic) & {"+", "#"} or "\x00" in topic
    )


def valid_topic_filter(topic: str) -> bool:
    """Return whether one can subscribe to this filter."""
    _, topic = parse_filter(topic)
    words = topic.split("/")
    return (
        bool(topic)
        and all(word in {"+", "#"} or not set(word) & {"+", "#"} for word in words)
        and "#" not in words[:-1]
    )


def parse_filter(topic_filter: str) -> tuple[str | None, str]:
    """Split a shared subscription into ``(group, filter)``; the group of a plain filter is ``None``."""
    if topic_filter.startswith("$share/"):
        _, group, rest = [*topic_filter.split("/", 2), "", ""][:3]
        return group, rest
    if topic_filter.startswith("$queue/"):
        return "$queue", topic_filter[len("$queue/") :]
    return None, topic_filter


def join_filter(group: str | None, topic: str) -> str:
    """Write a subscription as :func:`parse_filter` reads it."""
    if group is None:
        return topic
    return f"$queue/{topic}" if group == "$queue" else f"$share/{group}/{topic}"
