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
        """Return class and raw arguments, from which Airflow's serialization recreates this error."""
        cls = self.__class__
        return f"{cls.__module__}.{cls.__name__}", self.args, {}


class EmqxConfigError(EmqxError, AirflowFailException):
    """A connection field, an argument or an id is invalid. Not retried by Airflow."""


class EmqxUnsupportedError(EmqxError, AirflowFailException):
    """The generation, version or edition of the broker does not support the operation. Not retried by Airflow."""


class EmqxConnectionError(EmqxError):
    """
    The broker could not be reached, or the connection ended before the response was complete.

    :param message: what failed.
    :param request: method and path of the request.
    :param sent: whether the request may have reached the broker.
    :param transient: whether a retry can help; it cannot for a certificate that does not verify.
    """

    def __init__(
        self, message: str = "", request: str = "", sent: bool = False, transient: bool = True
    ) -> None:
        super().__init__(message, request)
        self.args = (message, request, sent, transient)
        self.sent = sent
        self.transient = transient


class EmqxTimeoutError(EmqxConnectionError):
    """The broker did not respond in time. If the request was sent, it may have been processed."""


class EmqxOutcomeUnknownError(EmqxError):
    """
    The request may or may not have been processed, and processing it twice would differ from once.

    Raised for publishing, and for :meth:`EmqxHook.request` with POST, if the response was lost after the request
    was sent. Repeat it only if doing it twice does no harm.
    """


class EmqxStoppedError(EmqxError):
    """
    The task was stopped by a user, or its worker shuts down. Nothing was sent after the request in progress.

    The task's log, report and result say what was done before.
    """


class EmqxApiError(EmqxError):
    """
    The broker responded with an error.

    :param status: HTTP status.
    :param code: EMQX's own result code: text on v5 (``"NOT_FOUND"``), a number as text on v4 (``"108"``), or empty.
    :param reason: EMQX's own message without parts that repeat the request.
    :param request: method and path of the request.
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
    """The named object was not found."""


class EmqxAlreadyExistsError(EmqxApiError):
    """The object to create already exists."""


class _RetryLaterError(EmqxApiError):
    """
    The request may succeed later.

    :param retry_after: seconds to wait as requested by the response, or ``None``.
    """

    def __init__(
        self,
        status: int = 0,
        code: str = "",
        reason: str = "",
        request: str = "",
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, reason, request, hint)
        self.args = (status, code, reason, request, hint, retry_after)
        self.retry_after = retry_after


class EmqxRateLimitError(_RetryLaterError):
    """The API's rate limit was exceeded (HTTP 429)."""


class EmqxServerError(_RetryLaterError):
    """The broker, a node of its cluster or a proxy in front of it failed (HTTP 5xx, v4 code 101)."""


class EmqxNotReadyError(EmqxServerError):
    """
    The broker is starting: its port is open, but it does not serve this request yet.

    EMQX 5 and 6 respond to every path with HTTP 404 until their routes are set up, then to users with HTTP 400
    ``not_initialized`` and users and rules with crashes (HTTP 500). The same request is repeated until the
    connection's ``deadline``; after a crash, which may come after the work, only if it may be repeated.
    """
