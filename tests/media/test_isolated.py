import os
import time

import numpy as np
import pytest

from avllm.errors import InternalError, MediaError, NoAudioStream
from avllm.media import Limits, Sampling, open_video, write_video
from avllm.media.isolated import IsolatedMedia


class OnArrival:
    """Does something in the child, as soon as it is received there."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("isolated") / "clip.mp4"
    return write_video(path, [np.full((32, 48, 3), 12 * i, np.uint8) for i in range(20)], 10.0)


@pytest.fixture(scope="module")
def isolated():
    with IsolatedMedia(seconds=20.0, num_workers=1) as isolated:
        yield isolated


def test_equals_the_module(isolated, clip):
    mine = isolated.open_video(clip, isolated.Sampling(num_frames=4), size=(16, 24))
    plain = open_video(clip, Sampling(num_frames=4), size=(16, 24))

    assert np.array_equal(mine.frames, plain.frames)
    assert np.array_equal(mine.times_s, plain.times_s)
    assert isolated.probe(clip).to_dict()["streams"][0]["width"] == 48


def test_errors_keep_their_type_and_text(isolated, clip, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"not a video" * 100)

    with pytest.raises(NoAudioStream):
        isolated.open_audio(clip)
    with pytest.raises(MediaError, match=r"broken\.mp4: not a media file"):
        isolated.open_video(tmp_path / "broken.mp4")


def test_a_crash_is_an_error_and_the_next_file_is_read(isolated, clip):
    with pytest.raises(MediaError, match="made the decoder fail"):
        isolated.open_video(clip, OnArrival(os.abort))

    assert len(isolated.open_video(clip)) == 8


def test_more_memory_than_allowed_is_an_error(isolated, clip):
    with pytest.raises(MediaError):
        isolated.open_video(clip, OnArrival(bytearray, 16 * 2**30))

    assert len(isolated.open_video(clip)) == 8


def test_a_hang_ends_at_the_clock(clip):
    with IsolatedMedia(seconds=20.0, num_workers=1) as isolated:
        isolated.probe(clip)  # started
        isolated.seconds = 0.3
        with pytest.raises(MediaError, match=r"took more than 0\.3 s and was stopped"):
            isolated.open_video(clip, OnArrival(time.sleep, 60))
        isolated.seconds = 20.0
        assert len(isolated.open_video(clip)) == 8


def test_limits_hold_for_every_way_in(clip):
    with IsolatedMedia(limits=Limits(file_bytes=100), num_workers=1) as isolated:
        for name in ("probe", "open_video", "open_audio", "open_image"):
            with pytest.raises(MediaError, match="the limit is 100 bytes"):
                getattr(isolated, name)(clip)


def test_closing_ends_the_processes(clip):
    isolated = IsolatedMedia(num_workers=2)
    isolated.probe(clip)
    (pid,) = isolated.pids
    isolated.close()

    assert not isolated.pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_fault_of_ours_or_of_a_library_is_not_told_as_one_of_the_file(isolated, clip):
    with pytest.raises(InternalError, match=r"^TypeError: .*'metadata_errors'.* av \d+\.\d+") as caught:
        isolated.open_video(clip, metadata_errors="replace")

    assert "Traceback" in caught.value.__notes__[0]  # where it was, for --verbose
    assert len(isolated.open_video(clip)) == 8


def test_a_process_that_python_ended_is_no_fault_of_the_file(clip):
    with IsolatedMedia(num_workers=1) as isolated, pytest.raises(InternalError, match="ended with code 3"):
        isolated.open_video(clip, OnArrival(os._exit, 3))
