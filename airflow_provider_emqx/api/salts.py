"""
Which salts a broker takes in an import of users.

JSON carries salts that are valid UTF-8. Others go as a CSV file, in which EMQX takes fields apart at separators and
cleans them up, so that some are refused with the whole file, and others are stored shortened: nobody could log in.
"""

from __future__ import annotations

import re

from airflow_provider_emqx.api.base import Broker

NOT_CARRIED = "an import of users cannot carry this salt: the device needs a new password, or bulk='archive'"
#: EMQX before 5.9 takes fields apart at commas and spaces
_SEPARATED = re.compile(rb"[\r\n, ]")
#: EMQX 6.1 and newer takes white space off fields, for which they must begin as text, and so must what follows a space
_TRIMMED = re.compile(rb"[\t-\r ,]|\xc2\x85|\xe2\x80[\x8e\x8f\xa8\xa9]")
_WHITE = b" \t\r\n\v\f"


def not_carried(broker: Broker, user_id: str, salt: bytes) -> str | None:
    """
    Return why a user whose salt is not text cannot be imported.

    :param broker: where the user goes. Where its version is between those that were tried, or not known, both rules
        count.
    :param user_id: travels in the same file.
    :param salt: its bytes.
    :return: the reason, ``None`` if it can.
    """
    name = user_id.encode()
    if salt.strip(_WHITE + b",") != salt:
        return NOT_CARRIED
    if not broker.at_least(6, 1) and _SEPARATED.search(salt):
        return NOT_CARRIED
    newer = broker.version is None or broker.at_least(5, 9)
    if newer and (_TRIMMED.search(salt) or not _begins_as_text(salt)):
        return NOT_CARRIED
    if re.search(rb"[\r\n,]" if broker.at_least(6, 1) else _SEPARATED, name) or user_id.strip() != user_id:
        return f"{NOT_CARRIED} (beside a user_id with a comma, a space or a line break)"
    return None


def _begins_as_text(salt: bytes) -> bool:
    """Return whether the first character is valid UTF-8."""
    return any(_is_text(salt[:length]) for length in range(1, 5))


def _is_text(data: bytes) -> bool:
    return data.decode(errors="ignore").encode() == data
