from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.base import Answer, Request
from airflow_provider_emqx.api.v4 import replies as v4
from airflow_provider_emqx.api.v5 import replies as v5

ASKED = Request("GET", "/clients/dev-1")


def answer(status: int, body: Any = b"", content_type: str = "application/json", **more: Any) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, content_type, content, **more)


def refused(
    reader: Any, status: int, body: Any = b"", request: Request = ASKED, **more: Any
) -> errors.EmqxError:
    with pytest.raises(errors.EmqxError) as caught:
        reader(request, answer(status, body, **more))
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "data", "meta"),
    [
        (200, {"clientid": "dev-1"}, {"clientid": "dev-1"}, {}),
        (200, [1, 2], [1, 2], {}),
        (200, {"data": [1], "meta": {"page": 1}}, [1], {"page": 1}),
        (200, {"data": {"user_id": "u"}}, {"user_id": "u"}, {}),
        (200, {"data": [1], "code": "x"}, {"data": [1], "code": "x"}, {}),
        (201, {"user_id": "u"}, {"user_id": "u"}, {}),
        (200, 3, 3, {}),
        (204, b"", None, {}),
        (202, {"reason_code": 16, "message": "no_matching_subscribers"}, ..., {}),
    ],
)
def test_v5_success_is_read_without_its_wrapping(status: int, body: Any, data: Any, meta: Any) -> None:
    reply = v5.read(ASKED, answer(status, body))
    assert reply.data == (body if data is ... else data)
    assert reply.meta == meta


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (
            401,
            {"code": "BAD_API_KEY_OR_SECRET", "message": "Check api_key/api_secret"},
            errors.EmqxAuthError,
            None,
        ),
        (401, b"UNAUTHORIZED", errors.EmqxAuthError, ""),
        (403, {"code": "UNAUTHORIZED_ROLE", "message": "x"}, errors.EmqxForbiddenError, None),
        (
            404,
            {"code": "CLIENTID_NOT_FOUND", "message": "Client ID not found"},
            errors.EmqxNotFoundError,
            None,
        ),
        (400, {"code": "NOT_FOUND", "message": "Alarm not found"}, errors.EmqxNotFoundError, None),
        (
            409,
            {"code": "ALREADY_EXISTS", "message": "User already exists"},
            errors.EmqxAlreadyExistsError,
            None,
        ),
        (400, {"code": "ALREADY_EXISTS", "message": '{"who":"x"}'}, errors.EmqxAlreadyExistsError, None),
        (400, {"code": "BAD_REQUEST", "message": "bad_format"}, errors.EmqxBadRequestError, None),
        (400, {"reason_code": 144, "message": "topic_name_invalid"}, errors.EmqxBadRequestError, "144"),
        (400, {"code": "BAD_RPC", "message": "nodedown"}, errors.EmqxServerError, None),
        (400, {"code": "RPC_ERROR", "message": "nodedown"}, errors.EmqxServerError, None),
        (415, {"code": "UNSUPPORTED_MEDIA_TYPE", "message": "x"}, errors.EmqxBadRequestError, None),
        (405, b"", errors.EmqxBadRequestError, ""),
        (414, b"", errors.EmqxBadRequestError, ""),
        (429, b"slow down", errors.EmqxRateLimitError, ""),
        (500, {"code": "NODE_DOWN", "message": "x"}, errors.EmqxServerError, None),
        (500, b"", errors.EmqxServerError, ""),
        (502, b"<html>bad gateway</html>", errors.EmqxServerError, ""),
        (503, {"code": "SERVICE_UNAVAILABLE", "message": "x"}, errors.EmqxServerError, None),
    ],
)
def test_v5_failures_become_one_typed_error(status: int, body: Any, kind: type, code: str | None) -> None:
    error = refused(v5.read, status, body)
    assert type(error) is kind
    assert isinstance(error, errors.EmqxApiError)
    assert error.code == (body["code"] if code is None else code)
    assert error.status == status
    assert "GET /clients/dev-1" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"<html>404</html>", {"code": "NOT_FOUND", "message": "Request Path Not Found"}]
)
def test_v5_404_without_a_thing_that_is_missing_is_no_absent_thing(body: Any) -> None:
    assert isinstance(refused(v5.read, 404, body), errors.EmqxUnsupportedError)


def test_v5_501_is_unsupported() -> None:
    error = refused(v5.read, 501, {"code": "NOT_IMPLEMENTED", "message": "durable session"})
    assert isinstance(error, errors.EmqxUnsupportedError)


@pytest.mark.parametrize("reader", [v4.read, v5.read])
def test_a_redirect_is_an_error_that_names_the_targets_origin(reader: Any) -> None:
    error = refused(reader, 302, b"", location="https://login.example.com")
    assert isinstance(error, errors.EmqxConfigError)
    assert "https://login.example.com" in str(error)


@pytest.mark.parametrize("reader", [v4.read, v5.read])
def test_a_success_that_is_no_json_is_no_success(reader: Any) -> None:
    error = refused(reader, 200, b"<html>welcome</html>", content_type="text/html")
    assert isinstance(error, errors.EmqxServerError)
    assert "text/html" in str(error)


def test_the_other_generation_is_recognised() -> None:
    v4_body = {"code": 0, "data": []}
    assert "EMQX 4" in str(refused(v5.read, 200, v4_body))
    assert "EMQX 4" in str(refused(v5.read, 400, {"code": 101, "message": "x"}))
    v5_body = {"code": "NOT_FOUND", "message": "Request Path Not Found"}
    for error in (refused(v4.read, 404, v5_body), refused(v4.read, 200, [1])):
        assert isinstance(error, errors.EmqxConfigError)
        assert "/api/v5" in str(error)


@pytest.mark.parametrize(
    ("body", "data", "meta"),
    [
        ({"code": 0}, None, {}),
        ({"code": 0, "data": []}, [], {}),
        ({"code": 0, "data": [1], "meta": {"count": -1}}, [1], {"count": -1}),
    ],
)
def test_v4_success_is_code_0(body: Any, data: Any, meta: Any) -> None:
    reply = v4.read(ASKED, answer(200, body))
    assert (reply.data, reply.meta) == (data, meta)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"message": "existed"}, errors.EmqxAlreadyExistsError),
        ({"message": "noexisted"}, errors.EmqxNotFoundError),
        ({"message": "topic_not_found"}, errors.EmqxNotFoundError),
        ({"message": "password"}, errors.EmqxBadRequestError),
        ({"message": "module_not_loaded"}, errors.EmqxUnsupportedError),
        ({"code": 101, "message": "x"}, errors.EmqxServerError),
        ({"code": 108, "message": "bad clientid: must be string"}, errors.EmqxBadRequestError),
        ({"code": 112, "message": "channel_not_found"}, errors.EmqxNotFoundError),
        ({"code": 115, "message": "bad_topic"}, errors.EmqxBadRequestError),
        ({"code": 404, "message": "Not Found"}, errors.EmqxNotFoundError),
    ],
)
def test_v4_refusals_in_http_200_are_refusals(body: Any, kind: type) -> None:
    assert type(refused(v4.read, 200, body)) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"Bad Request", errors.EmqxBadRequestError),
        (401, b"UNAUTHORIZED", errors.EmqxAuthError),
        (404, b"Not found.", errors.EmqxUnsupportedError),
        (404, b"", errors.EmqxUnsupportedError),
        (429, b"", errors.EmqxRateLimitError),
        (500, b"Internal Error", errors.EmqxServerError),
        (503, b"<html>", errors.EmqxServerError),
    ],
)
def test_v4_texts_become_one_typed_error(status: int, body: bytes, kind: type) -> None:
    assert type(refused(v4.read, status, body, content_type="text/plain")) is kind


@pytest.mark.parametrize(
    ("status", "kind"), [(503, errors.EmqxServerError), (429, errors.EmqxRateLimitError)]
)
def test_a_gateway_that_has_no_time_now_is_not_taken_for_emqx_5(status: int, kind: type) -> None:
    error = refused(v4.read, status, {"code": "UNAVAILABLE", "message": "try again"})
    assert type(error) is kind


def test_v4_names_what_a_number_means_where_the_broker_does_not() -> None:
    assert "a node of the cluster did not answer" in str(refused(v4.read, 200, {"code": 101}))


def test_a_body_without_code_is_read_only_where_it_is_expected() -> None:
    request = Request("GET", "/shadows", accept=(200,))
    assert v4.read(request, answer(200, {"items": []})).data == {"items": []}
    assert isinstance(refused(v4.read, 200, {"items": []}), errors.EmqxConfigError)


def test_a_file_comes_as_bytes() -> None:
    request = Request("GET", "/data/files/x", binary=True)
    for read in (v4.read, v5.read):
        assert (
            read(request, answer(200, b"\x1f\x8b", content_type="application/octet-stream")).data
            == b"\x1f\x8b"
        )


def test_an_expected_failure_status_is_a_reply() -> None:
    request = Request("POST", "/publish/bulk", accept=(503,))
    assert v5.read(request, answer(503, [{"id": "1"}])).data == [{"id": "1"}]
    assert isinstance(refused(v5.read, 503, b"<html>", request), errors.EmqxServerError)


LISTED = Request("GET", "/clients", fields=("clientid", "connected"))
LONG = [{"clientid": '"a,\u00fc', "connected": True, "port": 1}, {"clientid": "b", "port": [{}]}]
LEAN = [{"clientid": '"a,\u00fc', "connected": True}, {"clientid": "b"}]


@pytest.mark.parametrize(
    ("reader", "body"),
    [
        (v5.read, {"data": LONG, "meta": {"page": 1}}),
        (v4.read, {"meta": {"page": 1}, "data": LONG, "code": 0}),
    ],
)
def test_of_a_listing_only_the_fields_asked_for_are_read(reader: Any, body: Any) -> None:
    reply = reader(LISTED, answer(200, body))
    assert (reply.data, reply.meta) == (LEAN, {"page": 1})


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b'{"data": [{"clientid": "a\xff"}], "meta": {}}',
        b'{"data": [{"clientid": "a"}',
        b"[" * 100_000,
        {"data": {"clientid": "a"}, "meta": {}},
        {"data": ["a"], "meta": {}, "code": 0},
        {"code": 0},
        {"code": 0, "data": LONG, "message": "x"},
        {"code": 107, "data": [], "message": "x"},
        {"code": False, "data": []},
        {"code": "NOT_FOUND", "message": "x"},
        {"message": "module_not_loaded"},
        {"data": LONG, "meta": {"page": 1}, "other": 1},
        [{"clientid": "a", "port": 1}],
        None,
    ],
)
@pytest.mark.parametrize("reader", [v4.read, v5.read])
def test_what_is_no_listing_is_read_as_a_whole(reader: Any, body: Any) -> None:
    def outcome(request: Request) -> Any:
        try:
            reply = reader(request, answer(200, body))
        except errors.EmqxError as error:
            return str(error).removeprefix(str(request)), type(error)
        return reply.data, reply.meta

    assert outcome(LISTED) == outcome(Request("GET", "/clients"))
