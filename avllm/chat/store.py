"""Media that were seen or heard once: their tokens, kept by content within a bound of bytes."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import RLock

from jaxtyping import Float
from torch import Tensor

from avllm.model import Medium


@dataclass(frozen=True, kw_only=True, eq=False)
class Perceived:
    """A medium as the decoder gets it.

    Args:
        key: says which content, read how, by which branch; equal keys have equal tokens.
        medium: its place in a prompt.
        tokens: what fills its slots.
        decode_s: seconds it took to open it.
        encode_s: seconds it took to encode it.
        num_damaged: packets or frames of it that were damaged and left out.
        part: which of the media of its turn it belongs to; a video and its sound belong to one.
    """

    key: str
    medium: Medium
    tokens: Float[Tensor, "m d"]
    decode_s: float = 0.0
    encode_s: float = 0.0
    num_damaged: int = 0
    part: int = -1


class MediaStore:
    """The media used last, by key. Several threads may use it.

    Args:
        max_bytes: of tokens that are kept.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[str, Perceived] = OrderedDict()
        self._lock = RLock()

    def get(self, key: str) -> Perceived | None:
        """The medium of this key, if it is still there."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, perceived: Perceived) -> None:
        """Keeps a medium and forgets those unused for longest."""
        with self._lock:
            self._kept[perceived.key] = perceived
            while self.num_bytes() > self.max_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)

    def num_bytes(self) -> int:
        """Bytes of all tokens kept."""
        return sum(item.tokens.numel() * item.tokens.element_size() for item in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)
