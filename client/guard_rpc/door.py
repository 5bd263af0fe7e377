"""The socket that relays may connect to, and who may.

gRPC does not tell Python which user is at the other end of a Unix socket. So the guard's own
socket lies in a folder that nobody else can enter, and this door listens where relays can reach
it: it asks the kernel for the user id of each caller (SO_PEERCRED) before a byte is read, and
passes the bytes of those on the list to the inner socket.
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
"""The guard's own socket, in the site's state folder, which nobody else can enter."""
MOST_CALLERS = 16
CHUNK = 2**16


class Door:
    """Listens until it is closed.

    Args:
        path: Where relays connect; replaced if a socket is left there, 0660.
        inner: The guard's own socket.
        users: User ids that may connect; the guard's own always may.
    Raises:
        OSError: Something else lies at `path`, or its folder cannot be written.
    """

    def __init__(self, path: Path, inner: Path, users: Collection[int]) -> None:
        self._inner = inner
        self._users = {*users, os.getuid()}
        self._path = path
        self._free = threading.BoundedSemaphore(MOST_CALLERS)
        if path.is_socket():
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            self._socket.bind(str(path))
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(before)
        self._socket.listen(MOST_CALLERS)
        self._thread = threading.Thread(target=self._accept, name="door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket; callers who are in may finish."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            user = peer(caller)
            if user not in self._users:
                log.warning("user %d was turned away", user)
                caller.close()
            elif not self._free.acquire(blocking=False):
                log.warning("more than %d callers: one was turned away", MOST_CALLERS)
                caller.close()
            else:
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        try:
            with caller, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guard:
                guard.connect(str(self._inner))
                back = threading.Thread(target=_pump, args=(guard, caller), daemon=True)
                back.start()
                _pump(caller, guard)
                back.join()
        except OSError as error:
            log.warning("a caller could not be served: %s", error.strerror)
        finally:
            self._free.release()


def peer(connection: socket.socket) -> int:
    """User id of the process at the other end of a Unix socket, as the kernel knows it."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    user: int = struct.unpack("3i", credentials)[1]
    return user


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on until either end closes."""
    try:
        while data := source.recv(CHUNK):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
