"""Files as the broker's API takes them: ``multipart/form-data`` with one part, called ``filename``."""

from __future__ import annotations


def upload(filename: str, content: bytes) -> tuple[bytes, str]:
    """
    Pack a file.

    :param filename: printable ASCII without quotes.
    :param content: the file.
    :return: body and content type of the request.
    """
    boundary = "airflow-provider-emqx-1d7c6f1c0c7b4c0f"
    while boundary.encode() in content:
        boundary += "x"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="filename"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
