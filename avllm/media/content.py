"""Keys of media by what they hold, not by what they are called."""

import os
from collections.abc import Mapping
from typing import Any

from avllm.errors import MediaError
from avllm.media.digests import add, new_digest
from avllm.media.source import MediaSource, resolve


def content_key(source: MediaSource, options: Mapping[str, Any]) -> str:
    """A digest of what a source holds and how it is read.

    Equal bytes have equal keys, be they a file, a URL or a file object; so have equal frames and equal sounds, in
    whatever form they are in memory. A `Source` is hashed once, however often it is asked.

    Args:
        source: whatever this package opens; of a large folder, what the disk says of its files.
        options: everything that changes what is read from it; `limits` bound what is hashed.

    Raises:
        MediaError: what is in memory can be no medium, or a file cannot be read.
    """
    try:
        what = resolve(source, options.get("limits"))
    except MediaError:
        if not isinstance(source, str | os.PathLike):
            raise
        # What it is not will be told by whoever opens it.
        parts = b"name", os.fsdecode(source).encode("utf-8", "surrogatepass")
    else:
        parts = b"content", what.digest
    digest = new_digest("key")
    add(digest, *parts, repr(sorted(options.items(), key=lambda item: item[0])).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
