"""Secrets that can be recognised wherever they turn up."""

from __future__ import annotations

import json
import pickle
import traceback
from base64 import b64encode
from urllib.parse import quote, quote_plus

from airflow_provider_emqx.exceptions import EmqxError

KEY = "planted-key-7f3a"
SECRET = "pl4nted/SECRET:%&+=?#ü@x"
#: too short for Airflow to mask
SHORT = "q9Z!"
PASSWORD = 'pl4nted-PASS/%+"ü\\z'
PAYLOAD = "pl4nted-payload-5c21"
HASH = "c0ffee" * 10 + "beef"
SALT = "5a17" * 8
PEPPER = "pl4nted-pepper&=%41:44"
#: secret of a connection that is kept in Airflow's database
STORED = "pl4nted/STORED:%&+=?#x"
PROXY_PASSWORD = "pl4nted-proxy-0d4f"


def pair(key: str = KEY, secret: str = SECRET) -> str:
    """What the Authorization header carries."""
    return b64encode(f"{key}:{secret}".encode()).decode()


def forms(secret: str) -> set[str]:
    """A secret in every encoding in which it might be written down."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        b64encode(secret.encode()).decode().rstrip("="),
        secret.encode().hex(),
        str(list(secret.encode()))[1:-1],
    }


ALL = {
    form
    for secret in (
        *(KEY, SECRET, SHORT, PASSWORD, PAYLOAD, HASH, SALT, PEPPER, STORED, PROXY_PASSWORD),
        *(pair(), pair("stored-key", STORED)),
    )
    for form in forms(secret)
}


def shown(text: str, among: set[str] | None = None) -> list[str]:
    """The planted secrets that a text shows."""
    return sorted(form for form in (ALL if among is None else among) if form in text)


def told(error: BaseException) -> str:
    """All that an exception, and those behind it, say in any way."""
    words = ["".join(traceback.format_exception(error)), str(pickle.dumps(error))]
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        words += [str(one), repr(one), repr(one.args), repr(vars(one)) if isinstance(one, EmqxError) else ""]
        todo += [one.__cause__, one.__context__]
    return "\n".join(words)
