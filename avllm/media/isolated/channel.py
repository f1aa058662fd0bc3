"""Messages between a process and its decoder process, over a pair of sockets.

To the child go pickles, as it trusts its parent. Back come a header of JSON and raw bytes, and nothing is believed.
"""

import json
import pickle
import socket
import struct
import time
from typing import Any

import numpy as np

_REQUEST, _REPLY = struct.Struct("!Q"), struct.Struct("!I")
_LONGEST_HEADER = 1 << 20
_PIECE = 1 << 20


class Ended(Exception):
    """The other side is gone."""


class Malformed(Exception):
    """The child sent what no decoder process of ours sends."""


class ParentEnd:
    """The parent's end. Every call ends at a deadline, which `time.monotonic` tells.

    Args:
        end: a connected socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Any, deadline: float, descriptor: int | None = None) -> None:
        """Sends any object that pickles, and with it an open file.

        Raises:
            TimeoutError: the child did not take it in time.
            Ended: it is gone.
        """
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        data = memoryview(_REQUEST.pack(len(data)) + data)
        try:
            if descriptor is not None:
                self._until(deadline)
                data = data[socket.send_fds(self._end, [data[:_PIECE]], [descriptor]) :]
            while data:
                self._until(deadline)
                data = data[self._end.send(data[:_PIECE]) :]
        except TimeoutError:
            raise
        except OSError as error:
            raise Ended from error

    def header(self, deadline: float) -> dict[str, Any]:
        """What the child says, without its arrays.

        Raises:
            TimeoutError: it did not in time.
            Ended: it is gone.
            Malformed: it is too long, or no JSON object.
        """
        (length,) = _REPLY.unpack(self._bytes(_REPLY.size, deadline))
        if length > _LONGEST_HEADER:
            raise Malformed(f"a header of {length} bytes")
        try:
            found = json.loads(self._bytes(length, deadline), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise Malformed("a header that is no JSON") from error
        if not isinstance(found, dict):
            raise Malformed("a header that is no object")
        return found

    def array(self, shape: tuple[int, ...], dtype: str, deadline: float) -> np.ndarray:
        """An array whose size was checked. Raises as `header`."""
        array = np.empty(shape, dtype)
        if array.nbytes:
            self._fill(array.reshape(-1).view(np.uint8).data, deadline)
        return array

    def shut(self) -> None:
        """Ends what another thread may be waiting for."""
        try:
            self._end.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is gone already
            return

    def close(self) -> None:
        """Closes this end, which ends the child."""
        self._end.close()

    def _bytes(self, count: int, deadline: float) -> bytearray:
        data = bytearray(count)
        self._fill(memoryview(data), deadline)
        return data

    def _fill(self, place: memoryview, deadline: float) -> None:
        try:
            while place:
                self._until(deadline)
                count = self._end.recv_into(place)
                if not count:
                    raise Ended
                place = place[count:]
        except TimeoutError:
            raise
        except OSError as error:
            raise Ended from error

    def _until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._end.settimeout(left)


class ChildEnd:
    """The child's end, which waits as long as it takes.

    Args:
        end: a connected socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def receive(self) -> tuple[bytearray, list[int]]:
        """A pickle, and the descriptors that came with it.

        Raises:
            Ended: the parent is gone.
            MemoryError: it is too large; it was read away.
        """
        if hasattr(socket, "recv_fds"):
            head, descriptors, _, _ = socket.recv_fds(self.end, _REQUEST.size, 1)
        else:
            head, descriptors = self.end.recv(_REQUEST.size), list[int]()
        head = bytearray(head)
        while head and len(head) < _REQUEST.size:
            head += self.end.recv(_REQUEST.size - len(head))
        if not head:
            raise Ended
        (length,) = _REQUEST.unpack(head)
        try:
            data = bytearray(length)
        except MemoryError:
            self._drain(length)
            raise
        place = memoryview(data)
        while place:
            place = place[self._counted(self.end.recv_into(place)) :]
        return data, descriptors

    def send(self, header: dict[str, Any], *arrays: np.ndarray) -> None:
        """Sends an object of JSON, and arrays that it describes."""
        data = json.dumps(header).encode()
        self.end.sendall(_REPLY.pack(len(data)) + data)
        for array in arrays:
            if array.nbytes:
                self.end.sendall(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _drain(self, length: int) -> None:
        piece = bytearray(min(length, _PIECE))
        while length:
            length -= self._counted(self.end.recv_into(memoryview(piece)[: min(length, len(piece))]))

    def _counted(self, count: int) -> int:
        if not count:
            raise Ended
        return count


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
