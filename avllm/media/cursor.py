"""Reading a binary format field by field, never past its end."""

from avllm.errors import MediaError


class Cursor:
    """A place in some bytes.

    Args:
        data: what is read.
        name: of the file, for messages.
        order: of the bytes of a number.
    """

    def __init__(self, data: bytes | memoryview, name: str, *, order: str = "big") -> None:
        self.data, self.name, self.is_big, self.at = memoryview(data), name, order == "big", 0

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next bytes. Raises MediaError when there are fewer."""
        if count > self.left:
            raise MediaError(f"{self.name}: truncated or damaged: ends {count - self.left} bytes too early")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def uint(self, size: int) -> int:
        """An unsigned number of `size` bytes; 0 of none."""
        return int.from_bytes(self.take(size), "big" if self.is_big else "little")

    def sub(self, count: int) -> "Cursor":
        """A cursor over the next bytes alone."""
        part = Cursor(b"", self.name, order="big" if self.is_big else "little")
        part.data = memoryview(self.take(count))
        return part

    def skip(self, count: int) -> None:
        """Leaves out the next bytes. Raises MediaError when there are fewer."""
        if count > self.left:
            raise MediaError(f"{self.name}: truncated or damaged: ends {count - self.left} bytes too early")
        self.at += count
