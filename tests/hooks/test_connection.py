from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hooks.connection import read_connection
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.transport.settings import Settings


def read(host: str = "https://broker.example.com", *, extra: Any = None, **fields: Any) -> Settings:
    conn = Connection(
        conn_id="emqx_default",
        conn_type="emqx",
        host=host,
        login=fields.pop("login", "key"),
        password=fields.pop("password", "secret"),
        **fields,
    )
    return read_connection(conn, extra or {})


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(EmqxConfigError) as caught:
        read(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("host", "origin", "base", "generation"),
    [
        ("https://id.emqx.cloud:8443/api", "https://id.emqx.cloud:8443", "/api", "v4"),
        ("https://broker.example.com:8081/api/v4", "https://broker.example.com:8081", "/api/v4", "v4"),
        ("https://broker.example.com:8443/api/v5/", "https://broker.example.com:8443", "/api/v5", "v5"),
        ("https://gw.example.com/emqx/api/v5", "https://gw.example.com", "/emqx/api/v5", "v5"),
        ("broker.example.com", "https://broker.example.com", None, None),
        ("broker.example.com:18083", "https://broker.example.com:18083", None, None),
        ("Broker.Example.com/api/v5", "https://broker.example.com", "/api/v5", "v5"),
        ("localhost:18083", "http://localhost:18083", None, None),
        ("localhost:8081", "http://localhost:8081", None, None),
        ("127.0.0.1", "http://127.0.0.1", None, None),
        ("https://localhost:8443", "https://localhost:8443", None, None),
        ("[::1]:18083", "http://[::1]:18083", None, None),
    ],
)
def test_every_way_to_write_the_address_is_understood(
    host: str, origin: str, base: str | None, generation: str | None
) -> None:
    settings = read(host)
    assert (settings.origin, settings.base, settings.generation) == (origin, base, generation)


def test_the_port_may_stand_in_its_own_field() -> None:
    assert read("broker.example.com", port=8443).origin == "https://broker.example.com:8443"
    assert read("https://broker.example.com:8443", port=8443).origin == "https://broker.example.com:8443"
    assert read("https://broker.example.com:8443", port=0).origin == "https://broker.example.com:8443"
    assert read("https://broker.example.com", port=0).origin == "https://broker.example.com"


def test_a_secrets_backend_may_have_the_port_as_text() -> None:
    def with_port(port: Any) -> Connection:
        conn = Connection(conn_id="c", conn_type="emqx", host="https://broker.example.com:18083", login="k")
        conn.password = "s"
        conn.port = port
        return conn

    assert read_connection(with_port("18083"), {}).origin == "https://broker.example.com:18083"
    assert read_connection(with_port(" "), {}).origin == "https://broker.example.com:18083"
    with pytest.raises(EmqxConfigError, match="must be a whole number, not 'eighty'"):
        read_connection(with_port("eighty"), {})


@pytest.mark.parametrize(
    ("uri", "origin", "base"),
    [
        ("emqx://key:secret@broker.example.com:8443/api%2Fv5", "https://broker.example.com:8443", "/api/v5"),
        ("emqx://key:secret@broker.example.com:8443/api/v5", "https://broker.example.com:8443", "/api/v5"),
        ("emqx://key:secret@broker.example.com:8443/https", "https://broker.example.com:8443", None),
        (
            "emqx://key:secret@https%3A%2F%2Fbroker.example.com%3A8443%2Fapi",
            "https://broker.example.com:8443",
            "/api",
        ),
        ("emqx://key:secret@localhost:18083", "http://localhost:18083", None),
    ],
)
def test_airflow_uris_are_understood(
    uri: str, origin: str, base: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    monkeypatch.setenv("AIRFLOW_CONN_EMQX_URI", uri)
    settings = EmqxHook("emqx_uri").settings
    assert (settings.origin, settings.base) == (origin, base)
    assert (settings.key, settings.secret) == ("key", "secret")


def test_uri_extras_are_strings_and_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    monkeypatch.setenv(
        "AIRFLOW_CONN_EMQX_URI",
        "emqx://key:secret@broker.example.com/?verify=false&read_timeout=12.5&attempts=2&read_only=true&rate_limit=8",
    )
    settings = EmqxHook("emqx_uri").settings
    assert settings.verify is False
    assert settings.read_timeout == 12.5
    assert settings.attempts == 2
    assert settings.read_only is True
    assert settings.rate_limit == 8


def test_the_port_of_the_form_is_not_the_only_thing_checked_for_mqtt() -> None:
    assert "MQTT over TLS" in refusal("broker.example.com:8883")
    assert "MQTT" in refusal("broker.example.com", port=1883)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "“API address” is empty"),
        ("mqtt://broker.example.com", "begins with mqtt://"),
        ("https://", "has no host name"),
        ("https:/broker.example.com", "has no host name"),
        ("https://https://broker.example.com", "has no host name"),
        ("https://key:secret@broker.example.com", "put them into API key and API secret"),
        ("https://broker.example.com/api/v5?x=1", "query or fragment"),
        ("https://broker.example.com/api/v3", "is not where an EMQX API ends"),
        ("https://broker.example.com:99999", "is not an address"),
        ("http://broker.example.com", "use https://, or set “Allow plain HTTP”"),
        ("https://[::1", "is not an address"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_with_the_fields_label(host: str, said: str) -> None:
    message = refusal(host)
    assert said in message
    assert "connection 'emqx_default'" in message
    assert "secret@" not in message


def test_contradicting_parts_of_the_address_are_refused() -> None:
    assert "“API port” says 8444" in refusal("https://broker.example.com:8443", port=8444)
    assert "schema says http" in refusal("https://broker.example.com", schema="http")
    assert "differ" in refusal("https://broker.example.com/api/v5", schema="api/v4")
    assert "“API version” is v4" in refusal("https://broker.example.com/api/v5", extra={"api_version": "v4"})


def test_plain_http_needs_loopback_or_leave() -> None:
    assert read("http://127.0.0.1:18083").origin == "http://127.0.0.1:18083"
    allowed = read("http://broker.example.com:18083", extra={"allow_http": "true"})
    assert allowed.origin == "http://broker.example.com:18083"


def test_the_api_version_gives_the_base_where_the_address_has_none() -> None:
    settings = read("https://broker.example.com", extra={"api_version": "V4"})
    assert (settings.generation, settings.base) == ("v4", "/api/v4")
    behind_gateway = read("https://gw.example.com/emqx", extra={"api_version": "v5"})
    assert behind_gateway.base == "/emqx/api/v5"


def test_serverless_is_known_by_its_host() -> None:
    settings = read("https://x1.ala.eu-central-1.emqxsl.com:8443/api/v5")
    assert settings.serverless


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        ({"verify": True}, "verify", True),
        ({"verify": "False"}, "verify", False),
        ({"verify": ""}, "verify", True),
        ({"verify": None}, "verify", True),
        ({"attempts": 1}, "attempts", 1),
        ({"attempts": "3"}, "attempts", 3),
        ({"connect_timeout": "2.5"}, "connect_timeout", 2.5),
        ({"deadline": ""}, "deadline", 300.0),
        ({"rate_limit": "10"}, "rate_limit", 10.0),
        ({"emqx_version": "5.8.9"}, "version", (5, 8, 9)),
        ({"emqx_version": "v6.1.0-rc.1"}, "version", (6, 1, 0)),
        ({"authenticator": " "}, "authenticator", "password_based:built_in_database"),
        ({"namespace": "tenant-1"}, "namespace", "tenant-1"),
        ({"namespace": 17}, "namespace", "17"),
        ({"proxy": "http://proxy.example.com:3128"}, "proxy", "http://proxy.example.com:3128"),
        ({"read_only": "yes"}, "read_only", True),
    ],
)
def test_extras_are_taken_as_json_types_and_as_strings(extra: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(read(extra=extra), field) == value


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"attempts": "many"}, "“Attempts” must be a whole number from 1 to 1,000,000,000, not 'many'"),
        ({"attempts": 1.5}, "“Attempts” must be a whole number"),
        ({"attempts": True}, "“Attempts” must be a whole number"),
        ({"read_timeout": 0}, "“Read timeout (seconds)” must be a number above 0"),
        ({"deadline": "inf"}, "“Deadline (seconds)” must be a number above 0"),
        ({"verify": 3}, "“Verify TLS certificate” must be true, false or the path of a CA file"),
        ({"verify": "no-such-file.pem"}, "CA file 'no-such-file.pem' not found"),
        ({"read_only": "maybe"}, "“Read only” must be true or false, not 'maybe'"),
        ({"api_version": "v3"}, "“API version” must be one of auto, v4, v5"),
        ({"emqx_version": "newest"}, "“EMQX version” must look like 5.8.9"),
        ({"authenticator": []}, "“Authenticator” must be text"),
        ({"emqx_version": 5.1}, "“EMQX version” must be text, not the number 5.1"),
        ({"readonly": True}, "unknown extra 'readonly'; did you mean 'read_only' (“Read only”)?"),
    ],
)
def test_nonsense_in_an_extra_is_refused_with_the_fields_label(extra: dict[str, Any], said: str) -> None:
    assert said in refusal(extra=extra)


@pytest.mark.parametrize("extra", ["read_only: true", '{"read_only": true', '"text"', "[]"])
def test_extras_that_airflow_cannot_read_are_no_extras_to_ignore(extra: str) -> None:
    class Stored:
        conn_id, host, port, schema, login, password = "emqx_default", "localhost", None, "", "key", "secret"

    Stored.extra = extra  # type: ignore[attr-defined]
    with pytest.raises(EmqxConfigError, match="'emqx_default': its extra is not a JSON object"):
        # what Airflow's extra_dejson makes of it, with an error in the log
        read_connection(Stored(), {})  # type: ignore[arg-type]
    Stored.extra = "{}"  # type: ignore[attr-defined]
    assert read_connection(Stored(), {}).read_only is False  # type: ignore[arg-type]


@pytest.mark.parametrize("rate_limit", [0, -1, "x", float("nan"), True])
def test_an_impossible_rate_limit_of_the_hook_is_refused(
    rate_limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", "emqx://key:secret@localhost:18083?rate_limit=8")
    with pytest.raises(EmqxConfigError, match="“Rate limit.*” must be a number above 0"):
        assert EmqxHook(rate_limit=rate_limit).settings
    assert EmqxHook(rate_limit="2.5").settings.rate_limit == 2.5  # type: ignore[arg-type]
    assert EmqxHook().settings.rate_limit == 8


def test_serverless_has_no_v4() -> None:
    assert "should end with /api/v5" in refusal("https://x1.ala.eu-central-1.emqxsl.com:8443/api")


def test_a_proxy_that_is_no_url_is_refused_without_being_shown() -> None:
    message = refusal(extra={"proxy": "user:hunter2@proxy"})
    assert "“Proxy” must be a URL" in message
    assert "hunter2" not in message


def test_an_unknown_extra_that_looks_like_nothing_known_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read(extra={"team": "iot"})
    assert "'team'" in caplog.text


@pytest.mark.parametrize("missing", ["login", "password"])
def test_a_connection_without_key_or_secret_is_refused(missing: str) -> None:
    assert "API key and API secret are both needed" in refusal(**{missing: ""})


def test_a_key_with_a_colon_is_refused() -> None:
    assert "colon" in refusal(login="a:b")


@pytest.mark.parametrize(("field", "name"), [("login", "API key"), ("password", "API secret")])
def test_the_line_break_of_a_mounted_secret_is_told_and_not_shown(field: str, name: str) -> None:
    said = refusal(**{field: "planted-value\n"})
    assert f"the {name} begins or ends with white space" in said
    assert "planted" not in said


def test_no_secret_shows_in_the_settings_repr() -> None:
    settings = read(password="planted-secret", extra={"proxy": "http://u:planted-proxy@p:1"})
    assert "planted" not in repr(settings)
    assert settings.authorization not in repr(settings)


@pytest.mark.parametrize("host", ["https://a..b/api/v5", f"https://{'x' * 64}.example.com", ".example.com"])
def test_what_dns_cannot_be_asked_for_is_refused_before_it_counts_as_a_lost_answer(host: str) -> None:
    assert "“API address” has no host name" in refusal(host)


@pytest.mark.parametrize("path", ["a b/api/v5", "ü/api/v5", "../api/v5", "%2e%2e/api/v5", "%zz/api/v5"])
def test_a_path_that_cannot_be_sent_as_it_is_is_refused(path: str) -> None:
    assert "“API address”: the path" in refusal(f"https://broker.example.com/{path}")


@pytest.mark.parametrize(
    "proxy",
    [
        "http://[::1",
        "http://u:pa55@proxy:99999",
        "http://proxy:3128 pa55",
        "http://u:pa55/x@proxy",
        "http://a..b",
    ],
)
def test_a_proxy_that_nobody_can_connect_to_is_refused_without_being_shown(proxy: str) -> None:
    text = refusal(extra={"proxy": proxy})
    assert "must be a URL" in text
    assert "pa55" not in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e300, "at most 1,000,000,000"),
        ("1e10", "at most 1,000,000,000"),
        # more than any number that is computed with
        (10**400, "a number above 0, not 1000000"),
    ],
    ids=["float", "text", "int"],
)
def test_a_time_that_no_socket_can_wait_for_is_refused(value: Any, expected: str) -> None:
    assert f"must be {expected}" in refusal(extra={"read_timeout": value})


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("mqtts://broker.example.com", ("broker.example.com", 8883, True, None)),
        ("mqtts://Broker.Example.com:18883/", ("broker.example.com", 18883, True, None)),
        ("wss://broker.example.com", ("broker.example.com", 8084, True, "/mqtt")),
        ("wss://broker.example.com:443/behind/mqtt", ("broker.example.com", 443, True, "/behind/mqtt")),
        ("mqtt://localhost", ("localhost", 1883, False, None)),
        ("ws://[::1]:8083/mqtt", ("::1", 8083, False, "/mqtt")),
    ],
)
def test_the_address_of_the_mqtt_listener_is_read(url: str, reached: tuple[Any, ...]) -> None:
    extra = {"mqtt_url": f" {url} ", "mqtt_username": "me", "mqtt_password": "pw", "verify": False,
             "connect_timeout": 3, "read_timeout": "7", "read_only": True}  # fmt: skip
    mqtt = read(extra=extra).mqtt
    assert mqtt is not None
    assert (mqtt.host, mqtt.port, mqtt.tls, mqtt.path) == reached
    assert (mqtt.username, mqtt.password, mqtt.verify) == ("me", "pw", False)
    assert (mqtt.connect_timeout, mqtt.read_timeout, mqtt.read_only) == (3.0, 7.0, True)
    assert "pw" not in repr(mqtt)
    assert "pw" in read(extra=extra).secrets


def test_plain_mqtt_to_another_machine_needs_the_same_leave_as_plain_http() -> None:
    for url in ("mqtt://broker.example.com", "ws://broker.example.com:8083/mqtt"):
        assert "Allow plain HTTP" in refusal(extra={"mqtt_url": url})
        assert read(extra={"mqtt_url": url, "allow_http": "true"}).mqtt is not None
    assert read(extra={}).mqtt is None


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"mqtt_url": "broker.example.com:8883"}, "must begin with mqtts://"),
        ({"mqtt_url": "https://broker.example.com"}, "must begin with mqtts://"),
        ({"mqtt_url": "mqtts://me:hush-1@broker.example.com"}, "contains a user or password"),
        ({"mqtt_url": "mqtts://broker.example.com?password=hush-1"}, "has a query"),
        ({"mqtt_url": "mqtts://broker.example.com/mqtt"}, "has a path"),
        ({"mqtt_url": "mqtts://broker.example.com:99999"}, "is not an address"),
        ({"mqtt_url": "mqtts://broker.example.com:0"}, "not a port number"),
        ({"mqtt_url": "mqtts://"}, "no host name"),
        ({"mqtt_url": "mqtts://a b"}, "no host name"),
        ({"mqtt_url": 1883}, "must begin with mqtts://"),
        ({"mqtt_password": "hush-1"}, "is empty"),
        ({"mqtt_username": "me"}, "is empty"),
        ({"mqtt_url": "mqtts://b", "mqtt_password": "hush-1"}, "needs “MQTT username”"),
        ({"mqtt_url": "mqtts://b", "mqtt_username": "me", "mqtt_password": "hush-1 "}, "white space"),
        ({"mqtt_url": "mqtts://b", "mqtt_username": "me", "mqtt_password": ["hush-1"]}, "must be text"),
        ({"mqtt_url": "mqtts://b", "mqtt_username": "me", "mqtt_password": 1.5}, "must be text, not float"),
        ({"mqtt_url": "mqtts://b", "mqtt_username": "me", "mqtt_password": "hush-1\ud800"}, "surrogate"),
        ({"mqtt_urls": "mqtts://b"}, "'mqtt_url'"),
    ],
)
def test_an_mqtt_listener_that_cannot_be_right_is_refused(extra: dict[str, Any], why: str) -> None:
    said = refusal(extra=extra)
    assert why in said
    assert "hush-1" not in said
    assert "1.5" not in said


def test_the_mqtt_password_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.common.compat import sdk

    masked: list[str] = []
    monkeypatch.setattr(sdk, "mask_secret", masked.append)
    extra = {"mqtt_url": "mqtts://b", "mqtt_username": "me", "mqtt_password": "hush-1"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_EMQX_DEFAULT",
        json.dumps({"conn_type": "emqx", "host": "https://b", "login": "k", "password": "s", "extra": extra}),
    )
    assert EmqxHook().settings.mqtt is not None
    assert "hush-1" in masked
