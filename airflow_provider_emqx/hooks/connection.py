"""Parse and validate an Airflow connection of type ``emqx``."""

from __future__ import annotations

import difflib
import ipaddress
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_emqx.api.base import is_utf8
from airflow_provider_emqx.api.detect import parse_version
from airflow_provider_emqx.api.raw import check_path
from airflow_provider_emqx.arguments import boolean, positive, truth, whole
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.transport.settings import MqttSettings, Settings

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

_MQTT_PORTS = {1883: "MQTT", 8883: "MQTT over TLS", 8083: "MQTT over WebSocket", 8084: "MQTT over WebSocket"}
#: schemes of the MQTT listener's address: default port, TLS, WebSocket
_MQTT_SCHEMES = {
    "mqtt": (1883, False, False),
    "mqtts": (8883, True, False),
    "ws": (8083, False, True),
    "wss": (8084, True, True),
}
#: 30 years of seconds; sockets cannot wait for much longer
_MOST = 1_000_000_000
_API_BASES = (("/api/v5", "v5"), ("/api/v4", "v4"), ("/api", "v4"))


def read_connection(
    conn: Connection,
    extras: Mapping[str, Any],
    *,
    user_id_type: str | None = None,
    rate_limit: float | None = None,
    retry_unsafe: bool = False,
) -> Settings:
    """
    Return the settings of a connection.

    :param conn: the connection.
    :param extras: its decoded ``extra``: JSON types from the form, strings from URIs and secret backends.
    :param user_id_type: which users of EMQX 4 are meant.
    :param rate_limit: maximum requests per second, instead of the connection's.
    :param retry_unsafe: repeat unrepeatable requests that the broker says it could not carry out.
    :return: the settings.
    :raises EmqxConfigError: naming the connection and the field's label.
    """
    try:
        _readable(conn, extras)
        settings = _read(conn, extras if rate_limit is None else {**extras, "rate_limit": rate_limit})
    except EmqxConfigError as error:
        raise EmqxConfigError(f"connection {conn.conn_id!r}: {error.message}") from None
    return replace(settings, user_id_type=user_id_type or settings.user_id_type, retry_unsafe=retry_unsafe)


def _read(conn: Connection, extras: Mapping[str, Any]) -> Settings:
    _known(extras)
    allow_http = _boolean(extras, "allow_http", default=False)
    origin, prefix, base, generation = _address(conn.host or "", conn.port, conn.schema or "", allow_http)
    chosen = _one_of(extras, "api_version", ("auto", "v4", "v5"), "auto")
    if chosen != "auto":
        if generation and chosen != generation:
            raise EmqxConfigError(
                f"{_label('api_version')} is {chosen}, but the address ends in {base}, which is {generation}"
            )
        generation, base = chosen, base or f"{prefix}/api/{chosen}"
    if not conn.login or not conn.password:
        raise EmqxConfigError(
            "API key and API secret are both needed: create a pair in EMQX (System > API Keys; on EMQX 4: "
            "Management > Applications; in EMQX Cloud: Deployment API)"
        )
    _utf8("API key", conn.login)
    _utf8("API secret", conn.password)
    if ":" in conn.login:
        raise EmqxConfigError("the API key holds a colon, which HTTP Basic authentication cannot carry")
    for what, value in (("API key", conn.login), ("API secret", conn.password)):
        if value != value.strip():
            # as of a mounted secret that ends with a line break; the broker would just call it wrong
            raise EmqxConfigError(f"the {what} begins or ends with white space: take it away")
    verify, read_only = _verify(extras), _boolean(extras, "read_only", default=False)
    connect_timeout = _number(extras, "connect_timeout", 5.0)
    read_timeout = _number(extras, "read_timeout", 65.0)
    mqtt = _mqtt(extras, allow_http)
    if mqtt is not None:
        mqtt = replace(
            mqtt,
            verify=verify,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            read_only=read_only,
        )
    serverless = ".emqxsl." in origin
    if serverless and generation == "v4":
        raise EmqxConfigError("EMQX Cloud Serverless has API version v5: the address should end with /api/v5")
    return Settings(
        origin=origin,
        base=base,
        prefix=prefix,
        generation=generation,
        key=conn.login,
        secret=conn.password,
        version=_version(extras),
        authenticator=_text(extras, "authenticator") or "password_based:built_in_database",
        namespace=_text(extras, "namespace"),
        serverless=serverless,
        verify=verify,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        attempts=_whole(extras, "attempts", 4),
        deadline=_number(extras, "deadline", 300.0),
        # beyond it EMQX Cloud Serverless refuses requests
        rate_limit=_number(extras, "rate_limit", 10.0 if serverless else None),
        proxy=_proxy(extras),
        read_only=read_only,
        mqtt=mqtt,
    )


def _mqtt(extras: Mapping[str, Any], allow_plain: bool) -> MqttSettings | None:
    """Read the address and credentials of the MQTT listener; ``None`` without an address."""
    label = _label("mqtt_url")
    url, username, password = _text(extras, "mqtt_url"), _text(extras, "mqtt_username"), _password(extras)
    if url is None:
        if username or password:
            raise EmqxConfigError(f"{label} is empty, but there is an MQTT username or password for it")
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EmqxConfigError(
            f"{label} is not an address; expected something like mqtts://host:8883"
        ) from None
    if parts.scheme not in _MQTT_SCHEMES:
        raise EmqxConfigError(
            f"{label} must begin with mqtts://, wss://, mqtt:// or ws://, such as mqtts://host:8883"
        )
    if parts.username is not None or parts.password is not None:
        raise EmqxConfigError(
            f"{label} contains a user or password: put them into {_label('mqtt_username')} and "
            f"{_label('mqtt_password')}"
        )
    if parts.query or parts.fragment:
        raise EmqxConfigError(f"{label} has a query or fragment; expected something like mqtts://host:8883")
    name = (parts.hostname or "").lower()
    if not re.fullmatch(r"[^\s/\\@%]+", name) or not _is_host_name(name):
        raise EmqxConfigError(f"{label} has no host name; expected something like mqtts://host:8883")
    default, tls, websocket = _MQTT_SCHEMES[parts.scheme]
    if port == 0:
        raise EmqxConfigError(f"{label}: 0 is not a port number")
    if not websocket and parts.path.strip("/"):
        raise EmqxConfigError(f"{label} has a path, which only ws:// and wss:// have")
    if not tls and not allow_plain and not _is_loopback(name):
        raise EmqxConfigError(
            f"{label} begins with {parts.scheme}://, over which anyone on the way can read the MQTT password and all "
            f"messages: use mqtts:// or wss://, or set {_label('allow_http')} if the network is trusted"
        )
    if password is not None and username is None:
        raise EmqxConfigError(f"{_label('mqtt_password')} needs {_label('mqtt_username')}")
    path = (parts.path if parts.path.strip("/") else "/mqtt") if websocket else None
    return MqttSettings(name, port or default, tls, path, username, password)


def _address(
    host: str, port: int | str | None, schema: str, allow_http: bool
) -> tuple[str, str, str | None, str | None]:
    """Return origin, prefix, base path and generation; the last two only where the address tells them."""
    host, schema = host.strip(), schema.strip()
    _utf8(_label("host"), host + schema)
    if not host:
        raise EmqxConfigError(
            f"{_label('host')} is empty: give the API's address, as https://host:8443/api/v5"
        )
    # a URI may say emqx://host/https (as Airflow's http connections do) or emqx://host/api/v5
    wanted, path = (schema, "") if schema in ("http", "https") else ("", schema.strip("/"))
    parts = _split(host)
    if wanted and parts.scheme and wanted != parts.scheme:
        raise EmqxConfigError(f"{_label('host')} says {parts.scheme}://, but the schema says {wanted}")
    name = (parts.hostname or "").lower()
    local = _is_loopback(name)
    scheme = parts.scheme or wanted or ("http" if local else "https")
    if scheme == "http" and not local and not allow_http:
        raise EmqxConfigError(
            "the address begins with http://, over which anyone on the way can read the API secret: use https://, "
            f"or set {_label('allow_http')} if the network is trusted"
        )
    port = _port(parts.port, port)
    shown = f"[{name}]" if ":" in name else name
    origin = f"{scheme}://{shown}:{port}" if port else f"{scheme}://{shown}"
    written = parts.path.strip("/")
    if written and path and written != path:
        raise EmqxConfigError(f"{_label('host')} and the schema both hold a path, and they differ")
    return origin, *_base(re.sub(r"/{2,}", "/", f"/{written or path}" if written or path else ""))


def _split(host: str) -> SplitResult:
    """Parse the address; without a scheme it begins with the host name."""
    scheme = host.partition("://")[0].lower() if "://" in host else ""
    if scheme not in ("", "http", "https"):
        raise EmqxConfigError(
            f"{_label('host')} begins with {scheme}://, but EMQX's management API is reached over https:// (or "
            "http://); the address of the MQTT listener is something else"
        )
    try:
        parts = urlsplit(host if scheme else f"//{host}")
        parts.port  # noqa: B018  reading it is what checks it
    except ValueError:
        raise EmqxConfigError(
            f"{_label('host')} is not an address; expected something like https://host:8443/api/v5"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise EmqxConfigError(
            f"{_label('host')} contains a user or password: put them into API key and API secret"
        )
    if parts.query or parts.fragment:
        raise EmqxConfigError(
            f"{_label('host')} has a query or fragment; it should end with the path, as /api/v5"
        )
    # "https:/host" has the host "https"
    name = parts.hostname or ""
    if not re.fullmatch(r"[^\s/\\@%]+", name) or name in ("http", "https") or not _is_host_name(name):
        raise EmqxConfigError(
            f"{_label('host')} has no host name; expected something like https://host:8443/api/v5"
        )
    return parts


def _is_host_name(name: str) -> bool:
    """Return what DNS could be asked for from a name with empty parts or ones that are too long."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _port(written: int | None, field: int | str | None) -> int | None:
    # a secrets backend may have it as text
    if isinstance(field, str):
        if field.strip() and not (field.strip().isascii() and field.strip().isdigit()):
            raise EmqxConfigError(f"{_label('port')} must be a whole number, not {field!r}")
        field = int(field) if field.strip() else None
    if written and field and written != field:
        raise EmqxConfigError(f"{_label('host')} says port {written}, but {_label('port')} says {field}")
    # Airflow's form stores an empty port as 0
    port = written or field or None
    if port in _MQTT_PORTS:
        raise EmqxConfigError(
            f"port {port} is EMQX's port for {_MQTT_PORTS[port]}, not for its management API "
            "(EMQX 5 and 6: 18083, EMQX 4: 8081, EMQX Cloud: 8443)"
        )
    if port is not None and not 0 < port < 65536:
        raise EmqxConfigError(f"{_label('port')} {port} is not a port number")
    return port


def _base(path: str) -> tuple[str, str | None, str | None]:
    """Return what stands before the API in a path, the API's base path and its generation."""
    if path:
        try:
            check_path(path)
        except EmqxConfigError as error:
            raise EmqxConfigError(f"{_label('host')}: {error.message}") from None
    for ending, generation in _API_BASES:
        if path.endswith(ending):
            return path.removesuffix(ending), path, generation
    if re.search(r"/api(/|$)", path):
        raise EmqxConfigError(
            f"the path {path} of {_label('host')} is not where an EMQX API ends: it should be /api/v5, /api/v4, or "
            "/api for EMQX Cloud v4"
        )
    return path, None, None


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _readable(conn: Connection, extras: Any) -> None:
    """Refuse extras other than a JSON object: Airflow ignores them, so that ``read_only`` would be lost."""
    if extras or not conn.extra:
        is_object = isinstance(extras or {}, Mapping)
    else:
        try:
            is_object = isinstance(json.loads(conn.extra), dict)
        except (ValueError, RecursionError):
            is_object = False
    if not is_object:
        raise EmqxConfigError("its extra is not a JSON object, so its settings cannot be read")


def _known(extras: Mapping[str, Any]) -> None:
    """Refuse probable typos: ignoring a misspelled ``read_only`` would do harm."""
    fields = _fields()
    for name in extras:
        if name in fields:
            continue
        close = difflib.get_close_matches(str(name).lower().replace("-", "_"), fields, n=1, cutoff=0.8)
        if close:
            raise EmqxConfigError(f"unknown extra {name!r}; did you mean {close[0]!r} ({_label(close[0])})?")
        log.warning("Extra %r of the EMQX connection is unknown and ignored", name)


def _fields() -> dict[str, Any]:
    return get_provider_info()["connection-types"][0]["conn-fields"]  # type: ignore[no-any-return]


def _label(name: str) -> str:
    """Return the label under which the form shows a field."""
    kind = get_provider_info()["connection-types"][0]
    label = kind["ui-field-behaviour"]["relabeling"].get(name) or kind["conn-fields"].get(name, {}).get(
        "label"
    )
    return f"“{label or name}”"


def _given(extras: Mapping[str, Any], name: str) -> Any:
    value = extras.get(name)
    if isinstance(value, str):
        value = value.strip()
    return None if value == "" else value


def _text(extras: Mapping[str, Any], name: str) -> str | None:
    value = _given(extras, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        # Airflow reads numbers out of a URI's query: 5.10 would be 5.1
        raise EmqxConfigError(
            f"{_label(name)} must be text, not the number {value}: write all three parts, or quotes"
        )
    if value is not None and not isinstance(value, str):
        raise EmqxConfigError(f"{_label(name)} must be text, not {type(value).__name__}")
    _utf8(_label(name), value or "")
    return value


def _password(extras: Mapping[str, Any]) -> str | None:
    """Read the MQTT password; no error shows it."""
    value = extras.get("mqtt_password")
    label = _label("mqtt_password")
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        # Airflow reads numbers out of a URI's query
        value = str(value)
    if not isinstance(value, str):
        raise EmqxConfigError(f"{label} must be text, not {type(value).__name__}: write it in quotes")
    _utf8(label, value)
    if value != value.strip():
        raise EmqxConfigError(f"{label} begins or ends with white space: take it away")
    return value


def _utf8(what: str, text: str) -> None:
    if not is_utf8(text):
        raise EmqxConfigError(f"{what} contains a lone surrogate, which is not valid UTF-8")


def _boolean(extras: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _given(extras, name)
    return default if value is None else boolean(_label(name), value)


def _number(extras: Mapping[str, Any], name: str, default: float | None) -> Any:
    value = _given(extras, name)
    if value is None:
        return default
    number = positive(_label(name), value)
    if number > _MOST:
        raise EmqxConfigError(f"{_label(name)} must be at most {_MOST:,}")
    return number


def _whole(extras: Mapping[str, Any], name: str, default: int) -> int:
    value = _given(extras, name)
    return default if value is None else whole(_label(name), value, at_most=_MOST)


def _one_of(extras: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> str:
    value = _text(extras, name)
    if value is None:
        return default
    if value.lower() not in choices:
        raise EmqxConfigError(f"{_label(name)} must be one of {', '.join(choices)}, not {value!r}")
    return value.lower()


def _version(extras: Mapping[str, Any]) -> tuple[int, ...] | None:
    text = _text(extras, "emqx_version")
    if text is None:
        return None
    version = parse_version(text)
    if version is None:
        raise EmqxConfigError(f"{_label('emqx_version')} must look like 5.8.9, not {text!r}")
    return version


def _verify(extras: Mapping[str, Any]) -> bool | str:
    value = _given(extras, "verify")
    if value is None:
        return True
    told = truth(value)
    if told is not None:
        return told
    if not isinstance(value, str):
        raise EmqxConfigError(
            f"{_label('verify')} must be true, false or the path of a CA file, not {value!r}"
        )
    if not os.path.isfile(value):
        raise EmqxConfigError(f"{_label('verify')}: CA file {value!r} not found on this machine")
    return value


def _proxy(extras: Mapping[str, Any]) -> str | None:
    value = _text(extras, "proxy")
    # the value is not shown: it may hold a password
    if value is not None and not _is_proxy(value):
        raise EmqxConfigError(f"{_label('proxy')} must be a URL, as http://proxy.example.com:3128")
    return value


def _is_proxy(value: str) -> bool:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  reading it is what checks it
    except ValueError:
        return False
    name = parts.hostname or ""
    return (
        parts.scheme in ("http", "https")
        and bool(name)
        and parts.port != 0
        and not re.search(r"\s", value)
        and _is_host_name(name)
    )
