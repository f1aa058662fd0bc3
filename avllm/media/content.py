"""Keys of media by what they hold, not by what they are called."""

import os
from collections.abc import Mapping
from typing import Any

from avllm.errors import MediaError
from avllm.media.digests import new_digest
from avllm.media.source import MediaSource, resolve


def content_key(source: MediaSource, options: Mapping[str, Any]) -> str:
    """A digest of what a source holds and how it is read.

    Equal bytes have equal keys, be they a file, a URL or a file object; so have equal frames and equal sounds, in
    whatever form they are in memory. A `Source` is hashed once, however often it is asked.

    Args:
        source: whatever this package opens; of a folder, names, sizes and times of change.
        options: everything that changes what is read from it; `limits` bound what is hashed.

    Raises:
        MediaError: what is in memory can be no medium.
    """
    digest = new_digest()
    try:
        digest.update(resolve(source, options.get("limits")).digest)
    except MediaError:
        if not isinstance(source, str | os.PathLike):
            raise
        digest.update(os.fsencode(source))
    digest.update(repr(sorted(options.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()
