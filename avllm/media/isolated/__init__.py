"""Untrusted media, decoded in processes of their own: a crash, a hang or a bomb there is a MediaError here.

What is the fault of avllm or of a library, and not of the file, is an `InternalError`.
"""

from avllm.media.isolated.pool import BATCH_SECONDS, IsolatedMedia, reader_of

__all__ = ["BATCH_SECONDS", "IsolatedMedia", "reader_of"]
