"""Media that decoder processes read: as the module reads them, whatever becomes of the processes."""

import os
import pickle
import signal
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from avllm.errors import InternalError, MediaError, NoAudioStream
from avllm.media import Limits, Sampling, open_audio, open_image, open_video, probe, write_audio, write_video
from avllm.media.isolated import IsolatedMedia, reader_of
from tests.media.in_child import OnArrival, taken_over


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("isolated") / "clip.mp4"
    return write_video(path, [np.full((32, 48, 3), 12 * i, np.uint8) for i in range(20)], 10.0)


@pytest.fixture(scope="module")
def isolated():
    with IsolatedMedia(seconds=60.0, num_workers=1) as isolated:
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
    with pytest.raises(MediaError, match="more memory"):
        isolated.open_video(clip, OnArrival(bytearray, 16 * 2**30))

    assert len(isolated.open_video(clip)) == 8


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("while True: pass", "took more than"),
        ("time.sleep(600)", "took more than"),
        ("os.kill(os.getpid(), 19)", "took more than"),  # stopped
        ("os.abort()", "made the decoder fail"),
        ("import ctypes; ctypes.string_at(0)", "made the decoder fail"),  # a segmentation fault
        ("os.kill(os.getpid(), 9)", "made the decoder fail"),
        ("whole = []\nwhile True: whole.append(bytearray(1 << 26))", "more memory than one file may take"),
    ],
    ids=["spins", "sleeps", "stops", "aborts", "segfaults", "is killed", "eats memory"],
)
def test_s10_a_decoder_that_fails_or_hangs_is_an_error_in_time(clip, slow, code, said):
    if "took" in said:
        slow.probe(clip)  # started
        slow.seconds = 0.5
    started = time.monotonic()

    try:
        with pytest.raises(MediaError, match=said):
            slow.open_video(clip, taken_over(code))
    finally:
        slow.seconds = 60.0
    assert time.monotonic() - started < 50  # a generous bound; without the clock it would not end


def test_s10_the_next_file_is_read(slow, clip):
    assert len(slow.open_video(clip)) == 8


@pytest.fixture(scope="module")
def slow():
    with IsolatedMedia(num_workers=1, memory_bytes=1 << 30) as isolated:
        yield isolated


def test_the_clock_runs_while_a_process_starts(clip):
    with IsolatedMedia(seconds=0.01, num_workers=1) as isolated:
        with pytest.raises(InternalError, match=r"did not start within 0\.01 s"):
            isolated.probe(clip)
        isolated.seconds = 60.0
        assert isolated.probe(clip).has_video


def test_a_process_that_cannot_start_is_no_fault_of_the_file(clip, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/python")
    with IsolatedMedia(num_workers=1) as isolated, pytest.raises(InternalError, match="cannot be started"):
        isolated.probe(clip)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with IsolatedMedia(num_workers=1) as isolated, pytest.raises(InternalError, match="at its start"):
        isolated.probe(clip)


def test_s09_lost_processes_are_counted_and_logged(isolated, clip, caplog):
    before = isolated.num_lost
    isolated.probe(clip)
    with pytest.raises(MediaError):
        isolated.open_video(clip, OnArrival(os.abort))

    assert isolated.num_lost == before + 2  # in the one that had read others, and in a fresh one
    assert "a decoder process ended with signal SIGABRT" in caplog.text


def test_a_process_that_an_earlier_file_damaged_costs_none(isolated, clip):
    isolated.probe(clip)
    (pid,) = isolated.pids
    os.kill(pid, signal.SIGKILL)
    assert len(isolated.open_video(clip)) == 8
    assert isolated.pids != [pid]

    later = "threading.Timer(0.2, os.abort).start()"  # in the midst of the next file
    with pytest.raises(MediaError, match="honest"):
        isolated.open_video(clip, taken_over(f"{later}\nraise MediaError('honest')"))
    with pytest.raises(MediaError, match="at last"):
        isolated.open_video(clip, taken_over("time.sleep(0.4)\nraise MediaError('at last')"))


def test_closing_ends_who_waits(clip):
    isolated = IsolatedMedia(num_workers=1)
    isolated.probe(clip)
    found = []

    def read():
        try:
            isolated.open_video(clip, OnArrival(time.sleep, 600))
        except InternalError as error:
            found.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    while not isolated._free.empty():  # until it is under way
        time.sleep(0.005)
    isolated.close()
    thread.join(20)

    assert found == ["the decoder process was closed"]
    with pytest.raises(InternalError, match="are closed"):
        isolated.probe(clip)


def test_all_forms_of_a_medium_are_read_as_the_module_reads_them(isolated, clip, tmp_path):
    sound = write_audio(tmp_path / "sound.flac", 0.1 * np.random.default_rng(0).normal(size=(2, 9000)), 22050)
    folder = tmp_path / "frames"
    folder.mkdir()
    pictures = [np.full((20, 30, 3), 10 * number, np.uint8) for number in range(12)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    paths = sorted(folder.iterdir())
    with paths[3].open("rb") as file:
        for source in (clip, clip.read_bytes(), folder, paths, [*pictures[:2], paths[2]], pictures, paths[1], file):
            mine, plain = isolated.open_video(source), open_video(source)
            assert np.array_equal(mine.frames, plain.frames)
            assert np.array_equal(mine.times_s, plain.times_s)
            assert (mine.indices, mine.fps, mine.duration_s) == (plain.indices, plain.fps, plain.duration_s)
            assert isolated.probe(source) == probe(source)
    for source in (paths[5], paths[5].read_bytes(), pictures[5], Image.fromarray(pictures[5])):
        assert np.array_equal(isolated.open_image(source).frames, open_image(source).frames)
    for source in (sound, sound.read_bytes(), (22050, np.ones((2, 500), np.float32))):
        mine, plain = isolated.open_audio(source, start_s=0.005), open_audio(source, start_s=0.005)
        assert np.array_equal(mine.waveform, plain.waveform)
        assert (mine.start_s, mine.sample_rate) == (plain.start_s, plain.sample_rate)


def test_errors_in_a_folder_of_frames_are_those_of_the_module(isolated, tmp_path):
    (tmp_path / "1.png").write_bytes(b"no picture")
    for reader in (isolated.open_video, open_video):
        with pytest.raises(MediaError, match=r"/1\.png: not an image that can be read"):
            reader(tmp_path)
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")
    for reader in (isolated.open_video, open_video):
        with pytest.raises(MediaError, match=r"1\.png: not a regular file"):
            reader(tmp_path)


def test_what_is_decoded_already_starts_no_process():
    with IsolatedMedia(num_workers=1) as isolated:
        isolated.open_video(np.zeros((4, 8, 8, 3), np.uint8))
        isolated.open_audio(np.zeros(100, np.float32))
        isolated.open_image(Image.new("RGB", (4, 4)))

        assert not isolated.pids


def test_warnings_of_a_child_are_logged_by_the_parent(isolated, clip, caplog):
    warns = "import logging\nlogging.getLogger('avllm.x').warning('7 packets')"
    with pytest.raises(MediaError, match="then this"):
        isolated.open_video(clip, taken_over(f"{warns}\nraise MediaError('then this')"))

    assert "7 packets" in caplog.text


def test_a_pickled_and_a_forked_reader_have_processes_of_their_own(clip):
    with IsolatedMedia(seconds=60.0, num_workers=1) as isolated:
        isolated.probe(clip)
        (pid,) = isolated.pids
        with pickle.loads(pickle.dumps(isolated)) as other:
            assert (other.seconds, other.num_workers) == (60.0, 1)
            assert other.probe(clip).has_video
            assert other.pids != [pid]
        child = os.fork()
        if not child:
            is_right = not isolated.pids and isolated.probe(clip).has_video and isolated.pids != [pid]
            os._exit(0 if is_right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(isolated.open_video(clip)) == 8
        assert isolated.pids == [pid]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is looked up in /proc")
def test_s10_memory_does_not_grow_with_the_number_of_files(isolated, clip):
    def resident(pid):
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def both():
        return resident("self") + sum(map(resident, isolated.pids))

    for _ in range(30):
        isolated.open_video(clip)
    before, pids = both(), isolated.pids
    for _ in range(120):
        isolated.open_video(clip)

    assert isolated.pids == pids
    assert both() - before < 8  # MiB; a leak of one clip a file would be 16


def test_a_process_is_replaced_after_many_files(clip, monkeypatch):
    monkeypatch.setattr("avllm.media.isolated.process._MOST_CALLS", 2)
    with IsolatedMedia(num_workers=1) as isolated:
        seen = []
        for _ in range(3):
            isolated.probe(clip)
            seen += isolated.pids

        assert seen[0] == seen[1] != seen[2]
        assert isolated.num_lost == 0


def test_trusted_media_are_read_by_this_process():
    import avllm.media

    with reader_of(trusted_media=True, num_workers=1) as reader:
        assert reader is avllm.media
    with reader_of(trusted_media=False, num_workers=1, starts=False) as reader:
        assert isinstance(reader, IsolatedMedia)


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
