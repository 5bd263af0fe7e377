"""The socket that relays connect to, and the check of their user ids.

gRPC does not tell Python which user is at the other end of a Unix socket. Therefore the guard's
own socket lies in a folder that no other user can enter, and this proxy listens where relays can
reach it. It asks the kernel for the user id of each caller (SO_PEERCRED) before it reads a byte,
and passes the bytes of listed users on to the inner socket.
"""

import logging
import os
import socket
import struct
import threading
from collections.abc import Collection
from pathlib import Path

log = logging.getLogger(__name__)

INNER = "guard.sock"
"""Name of the guard's own socket in the site's state folder, which no other user can enter."""
MAX_CALLERS = 16
"""Maximal number of connections at a time."""
CHUNK = 2**16
"""Bytes that are passed on at once."""


class UserProxy:
    """Listens for relays, from its construction until it is closed.

    Args:
        path: The socket for relays, of mode 0660. A socket that was left there is replaced.
        inner: The guard's own socket.
        users: User ids that may connect. The guard's own user always may.
    Raises:
        OSError: Another file lies at `path`, or its folder cannot be written.
    """

    def __init__(self, path: Path, inner: Path, users: Collection[int]) -> None:
        self._inner = inner
        # The guard's own user checks whether it serves.
        self._users = {*users, os.getuid()}
        self._path = path
        self._free = threading.BoundedSemaphore(MAX_CALLERS)
        # A killed guard leaves its socket behind. Any other file is not ours to delete.
        if path.is_socket():
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The umask gives the socket its mode from the start: no other user can connect before it.
        before = os.umask(0o117)
        try:
            self._socket.bind(str(path))
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(before)
        self._socket.listen(MAX_CALLERS)
        self._thread = threading.Thread(target=self._accept, name="guard-proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket. Open connections may finish."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        """Accept callers, and close the connections of users who are not listed."""
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:  # the socket was closed
                return
            user = peer(caller)
            if user not in self._users:
                log.warning("user %d is not listed: connection closed", user)
                caller.close()
            elif not self._free.acquire(blocking=False):
                # Not queued: a relay asks again, and threads without limit would exhaust the guard.
                log.warning("more than %d connections: the newest was closed", MAX_CALLERS)
                caller.close()
            else:
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        """Pass bytes between a caller and the guard until either closes."""
        try:
            with caller, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guard:
                guard.connect(str(self._inner))
                # One thread for each direction, because either side may speak first.
                back = threading.Thread(target=_pump, args=(guard, caller), daemon=True)
                back.start()
                _pump(caller, guard)
                back.join()
        except OSError as error:
            log.warning("a caller could not be served: %s", error.strerror)
        finally:
            self._free.release()


def peer(connection: socket.socket) -> int:
    """Ask the kernel for the user id of the process at the other end of a socket.

    Args:
        connection: A connected Unix socket.
    """
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    user: int = struct.unpack("3i", credentials)[1]
    return user


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes from one socket to the other until either end closes."""
    try:
        while data := source.recv(CHUNK):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        # Both ends, so that the other direction ends as well.
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
