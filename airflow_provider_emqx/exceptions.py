"""Every error this provider raises on purpose; the one module with an Airflow import that ``api/`` may use."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

__all__ = [
    "EmqxAlreadyExistsError",
    "EmqxApiError",
    "EmqxAuthError",
    "EmqxBadRequestError",
    "EmqxConfigError",
    "EmqxConnectionError",
    "EmqxError",
    "EmqxForbiddenError",
    "EmqxNotFoundError",
    "EmqxNotReadyError",
    "EmqxOutcomeUnknownError",
    "EmqxRateLimitError",
    "EmqxServerError",
    "EmqxStoppedError",
    "EmqxTimeoutError",
    "EmqxUnsupportedError",
]


class EmqxError(AirflowException):
    """
    Base of all errors of this provider.

    Constructors keep their raw arguments and the text is made in ``__str__``, so that every error pickles.
    No error carries a request body, a password or a header.

    :param message: what is wrong and, where there is something to do, what to do next.
    :param request: what was asked, as ``"GET /clients/dev-1"``; empty when nothing was sent.
    """

    #: how often the exchange was tried
    attempts: int = 1
    #: seconds from the first attempt to the final error
    elapsed: float = 0.0
    #: whether an attempt of this exchange may have been carried out all the same
    maybe_applied: bool = False

    def __init__(self, message: str = "", request: str = "") -> None:
        super().__init__(message, request)
        self.message = message
        self.request = request

    def _what(self) -> str:
        return self.message

    def __str__(self) -> str:
        text = self._what()
        if self.request:
            text = f"{self.request}: {text}"
        if self.attempts > 1:
            text = f"{text} (gave up after {self.attempts} attempts in {self.elapsed:.1f} s)"
        return text

    def serialize(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Tell Airflow's own serialisation how to build this error again: from its raw arguments."""
        cls = self.__class__
        return f"{cls.__module__}.{cls.__name__}", self.args, {}


class EmqxConfigError(EmqxError, AirflowFailException):
    """What was given cannot be right: a connection field, an argument, an id. Not retried by Airflow."""


class EmqxUnsupportedError(EmqxError, AirflowFailException):
    """This broker (its generation, version or edition) has no such operation. Not retried by Airflow."""


class EmqxConnectionError(EmqxError):
    """
    The broker could not be reached, or the connection ended before a whole answer came.

    :param message: what failed.
    :param request: what was asked.
    :param sent: whether the request may have reached the broker.
    :param transient: whether trying again can help (a certificate that does not verify stays as it is).
    """

    def __init__(
        self, message: str = "", request: str = "", sent: bool = False, transient: bool = True
    ) -> None:
        super().__init__(message, request)
        self.args = (message, request, sent, transient)
        self.sent = sent
        self.transient = transient


class EmqxTimeoutError(EmqxConnectionError):
    """The broker did not answer in time; whether it did what was asked is not known if the request was sent."""


class EmqxOutcomeUnknownError(EmqxError):
    """
    The request may or may not have been carried out, and carrying it out twice would differ from once.

    Raised for publishing, and for :meth:`EmqxHook.request` with POST, when the answer was lost after the request
    was sent. Repeat only if twice does no harm.
    """


class EmqxStoppedError(EmqxError):
    """
    The task was stopped, by a user or because its worker ends, and nothing was sent after the request under way.

    What was done before is in the task's log, report and result.
    """


class EmqxApiError(EmqxError):
    """
    The broker answered, and the answer is a refusal.

    :param status: HTTP status.
    :param code: EMQX's own result code: text on v5 (``"NOT_FOUND"``), a number as text on v4 (``"108"``), or empty.
    :param reason: EMQX's own words, cleaned of anything that repeats the request.
    :param request: what was asked.
    :param hint: what to do next.
    """

    def __init__(
        self, status: int = 0, code: str = "", reason: str = "", request: str = "", hint: str = ""
    ) -> None:
        super().__init__(reason, request)
        self.args = (status, code, reason, request, hint)
        self.status = status
        self.code = code
        self.reason = reason
        self.hint = hint

    def _what(self) -> str:
        answer = " ".join(part for part in (f"HTTP {self.status}" if self.status else "", self.code) if part)
        text = f"EMQX answered {answer}" if answer else "EMQX refused"
        if self.reason:
            text = f"{text}: {self.reason}"
        return f"{text}. {self.hint}" if self.hint else text


class EmqxAuthError(EmqxApiError, AirflowFailException):
    """The API key or secret is wrong, disabled or expired (HTTP 401). Not retried by Airflow."""


class EmqxForbiddenError(EmqxApiError, AirflowFailException):
    """The key is known but lacks the role, scope or namespace for this call (HTTP 403). Not retried by Airflow."""


class EmqxBadRequestError(EmqxApiError, AirflowFailException):
    """The broker refused the content of the request; the same request would be refused again."""


class EmqxNotFoundError(EmqxApiError):
    """What was named is not there."""


class EmqxAlreadyExistsError(EmqxApiError):
    """What was to be created is there already."""


class EmqxRateLimitError(EmqxApiError):
    """
    The API's rate limit was exceeded (HTTP 429).

    :param retry_after: seconds to wait that the answer asked for, ``None`` where it did not say.
    """

    def __init__(
        self,
        status: int = 429,
        code: str = "",
        reason: str = "",
        request: str = "",
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, reason, request, hint)
        self.args = (status, code, reason, request, hint, retry_after)
        self.retry_after = retry_after


class EmqxServerError(EmqxApiError):
    """
    The broker, a node of its cluster or a proxy before it failed (HTTP 5xx, v4 code 101).

    :param retry_after: seconds to wait that the answer asked for, ``None`` where it did not say.
    """

    def __init__(
        self,
        status: int = 500,
        code: str = "",
        reason: str = "",
        request: str = "",
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, reason, request, hint)
        self.args = (status, code, reason, request, hint, retry_after)
        self.retry_after = retry_after


class EmqxNotReadyError(EmqxServerError):
    """
    The broker is starting: its port answers, but it does not serve this yet.

    EMQX 5 and 6 answer every path with HTTP 404 until their routes are set up, then users with HTTP 400
    ``not_initialized`` and users and rules with crashes (HTTP 500). The same request is repeated until the
    connection's ``deadline``; after a crash, which may come after the work, only if it may be repeated.
    """
