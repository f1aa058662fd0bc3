"""What must survive kill -9, a full disk and a second process: whole files and folders, appended rows, locks.

A row is in its file when it was added, and forced onto the disk a second later at most; a file or folder that is
written whole is on the disk when it appears. What is begun is named `.unfinished-...` and goes when it fails; what a
kill left of it goes when the same is written again.
"""

from avllm.durable.faults import UNFINISHED, disk_faults, told_of_disk
from avllm.durable.locks import in_use, lock_beside, locked
from avllm.durable.rows import Appender, append_line, appending, json_line, whole_lines
from avllm.durable.whole import file_whole, remove_unfinished, sync, sync_folder, write_json, write_whole, written_whole

__all__ = [
    "UNFINISHED",
    "Appender",
    "append_line",
    "appending",
    "disk_faults",
    "file_whole",
    "in_use",
    "json_line",
    "lock_beside",
    "locked",
    "remove_unfinished",
    "sync",
    "sync_folder",
    "told_of_disk",
    "whole_lines",
    "write_json",
    "write_whole",
    "written_whole",
]
