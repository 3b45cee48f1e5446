"""A port that a broker keeps while it is down."""

from __future__ import annotations

import socket


class Port:
    """
    A port on this machine.

    While nobody listens it stays taken, though connections are refused: another process would get it otherwise, and a
    broker that comes up again would not find its port.

    :param number: 0 for any free port.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._held: socket.socket | None = None

    def listen(self) -> socket.socket:
        """
        Listen.

        :raises OSError: if another process has the port.
        """
        taken, self._held = self._held or _bound(self.number), None
        self.number = taken.getsockname()[1]
        # connections of before, whose ends the system still waits for, are in nobody's way
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.listen(512)
        return taken

    def hold(self) -> None:
        """Keep the port, whose listening socket is closed."""
        try:
            self._held = _bound(self.number)
            # as long as nobody listens, others could share the port
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError:
            # another process was faster, and listen() says so
            self._held = None

    def release(self) -> None:
        """Release the port for other processes."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __del__(self) -> None:
        self.release()


def _bound(number: int) -> socket.socket:
    taken = socket.socket()
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", number))
    except OSError:
        taken.close()
        raise
    return taken
