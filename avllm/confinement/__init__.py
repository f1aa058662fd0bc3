"""What a process gives up for good before it touches a file of a stranger: memory, files, network, programs, rights.

It imports nothing but the standard library, so that a process can give them up before it imports anything else.
"""

from avllm.confinement.confine import confine, describe, readable_files

__all__ = ["confine", "describe", "readable_files"]
