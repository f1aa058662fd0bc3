"""What a decoder process that was taken over may answer: anything, of which nothing is believed."""

import json
import select
import socket
import threading
import time

import numpy as np
import pytest

from avllm.errors import MediaError, NoAudioStream
from avllm.media import Limits, open_audio, open_video, probe, write_audio, write_video
from avllm.media.isolated import IsolatedMedia
from avllm.media.isolated.channel import Ended, Malformed, ParentEnd
from avllm.media.isolated.results import packed, read_error, read_result, read_warnings
from tests.media.in_child import taken_over

LIMITS = Limits(frames=16, pixels=10_000, video_bytes=100_000, audio_bytes=100_000, seconds=10)
VIDEO = {
    "is": "video",
    "shape": [2, 4, 6, 3],
    "dtype": "uint8",
    "num_indices": 2,
    "duration_s": 1.0,
    "fps": 10.0,
    "has_audio": False,
    "num_damaged": 0,
}
AUDIO = {"is": "audio", "shape": [1, 100], "sample_rate": 16000, "start_s": 0.0, "num_damaged": 0}
STREAM = {
    **dict.fromkeys(("duration_s", "start_s", "frames", "fps", "width", "height", "rotation", "mirrored")),
    **dict.fromkeys(("channels", "sample_rate", "language")),
    **{"index": 0, "kind": "video", "codec": "h264"},
}
INFO = {"is": "info", "name": "a.mp4", "format": "mp4", "size_bytes": 9, "duration_s": None, "streams": [STREAM]}


def zeros(shape, dtype):
    return np.zeros(shape, dtype)


def refused(shape, dtype):
    raise AssertionError(f"memory was taken for {shape} {dtype}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("replies") / "clip.mp4"
    return write_video(path, [np.full((32, 48, 3), 12 * i, np.uint8) for i in range(20)], 10.0)


@pytest.fixture(scope="module")
def isolated():
    with IsolatedMedia(seconds=60.0, num_workers=1) as isolated:
        yield isolated


def test_a_result_comes_back_as_it_went(clip, tmp_path):
    sound = write_audio(tmp_path / "sound.wav", np.linspace(-1, 1, 800, dtype=np.float32)[None], 16000)
    for name, result in (("open_video", open_video(clip)), ("open_audio", open_audio(sound)), ("probe", probe(clip))):
        header, arrays = packed(result)
        left = iter(arrays)

        def read(shape, dtype, left=left):
            array = next(left)
            assert (array.shape, array.dtype.name) == (shape, dtype)
            return array

        back = read_result(name, json.loads(json.dumps(header)), {}, Limits(), read)

        assert type(back) is type(result)
        for field, value in vars(result).items():
            same = np.array_equal if isinstance(value, np.ndarray) else lambda a, b: a == b
            assert same(getattr(back, field), value), field


def test_the_headers_that_are_changed_below_are_good():
    assert read_result("open_video", VIDEO, {"size": (4, 6)}, LIMITS, zeros).frames.shape == (2, 4, 6, 3)
    assert read_result("open_audio", AUDIO, {"sample_rate": 16000}, LIMITS, zeros).waveform.shape == (1, 100)
    assert read_result("probe", INFO, {}, LIMITS, zeros).streams[0].codec == "h264"


@pytest.mark.parametrize(
    "change",
    [
        {"is": "audio"},
        {"is": "pickle"},
        {"is": None},
        {"shape": None},
        {"shape": [2, 4, 6]},
        {"shape": [2, 4, 6, 4]},
        {"shape": [0, 4, 6, 3]},
        {"shape": [-2, 4, 6, 3]},
        {"shape": [2.0, 4, 6, 3]},
        {"shape": [True, 4, 6, 3]},
        {"shape": [2, 6, 4, 3]},  # another size than was asked for
        {"shape": [2**62, 4, 6, 3]},
        {"shape": [17, 4, 6, 3], "num_indices": 17},  # over the limit of frames
        {"shape": "2463"},
        {"dtype": "object"},
        {"dtype": "float64"},
        {"dtype": ["uint8"]},
        {"num_indices": 1},
        {"num_indices": 2**40},
        {"num_indices": True},
        {"fps": "10"},
        {"fps": -1},
        {"fps": float("nan")},
        {"duration_s": float("inf")},
        {"duration_s": None},
        {"has_audio": 1},
    ],
)
def test_a_clip_that_was_not_asked_for_is_refused_before_memory_is_taken(change):
    with pytest.raises(Malformed):
        read_result("open_video", VIDEO | change, {"size": (4, 6)}, LIMITS, refused)


def test_a_clip_over_a_limit_is_refused_before_memory_is_taken():
    for shape in ([1, 100, 100, 3], [16, 40, 52, 3]):  # just under: 10,000 pixels; 99,840 bytes
        header = VIDEO | {"shape": shape, "num_indices": 0}
        assert read_result("open_video", header, {}, LIMITS, zeros).frames.shape == tuple(shape)
    for shape in ([1, 101, 100, 3], [16, 40, 53, 3]):
        with pytest.raises(Malformed, match="the limit is"):
            read_result("open_video", VIDEO | {"shape": shape, "num_indices": 0}, {}, LIMITS, refused)


@pytest.mark.parametrize(
    "change",
    [
        {"is": "video"},
        {"shape": [1]},
        {"shape": [0, 100]},
        {"shape": [65, 100]},
        {"shape": [1, 2**50]},
        {"shape": [1, 16000 * 12]},
        {"sample_rate": 8000},
        {"sample_rate": 16000.0},
        {"sample_rate": None},
        {"start_s": None},
        {"num_damaged": -1},
    ],
)
def test_a_sound_that_was_not_asked_for_is_refused_before_memory_is_taken(change):
    with pytest.raises(Malformed):
        read_result("open_audio", AUDIO | change, {"sample_rate": 16000}, LIMITS, refused)


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"format": 7},
        {"size_bytes": "9"},
        {"duration_s": float("nan")},
        {"streams": None},
        {"streams": [None]},
        {"streams": [{"index": 0}]},
        {"streams": [STREAM | {"__class__": "x"}]},
        {"streams": [STREAM | {"index": None}]},
        {"streams": [STREAM | {"width": 1.5}]},
        {"streams": [STREAM | {"mirrored": 1}]},
        {"streams": [STREAM | {"fps": float("inf")}]},
        {"streams": [STREAM | {"codec": ["h264"]}]},
    ],
)
def test_tracks_that_are_none_are_refused(change):
    with pytest.raises(Malformed):
        read_result("probe", INFO | change, {}, LIMITS, refused)


def test_errors_are_those_of_a_table_and_their_texts_act_on_no_terminal():
    error = read_error({"is": "error", "kind": "NoAudioStream", "text": "a.mp4:\x1b[2J no\naudio" + "x" * 9999})
    assert type(error) is NoAudioStream
    assert str(error).startswith("a.mp4: [2J no audio")
    assert len(str(error)) == 2000
    for kind in ("SystemExit", "KeyboardInterrupt", "OSError", "__import__", None, ["MediaError"], {}):
        with pytest.raises(Malformed):
            read_error({"is": "error", "kind": kind, "text": "x"})
    with pytest.raises(Malformed):
        read_error({"is": "error", "kind": "MediaError", "text": 7})
    assert read_warnings({"warnings": ["a\x07b"] * 99}) == ["a b"] * 20
    with pytest.raises(Malformed):
        read_warnings({"warnings": {"a": 1}})


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with theirs:
        channel = ParentEnd(ours)
        yield channel, theirs
        channel.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",  # a header of 4 GiB
        b"\x00\x10\x00\x01",  # one byte more than a header may have
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x04null",
        b"\x00\x00\x00\x01\xff",
        b'\x00\x00\x00\x07{"a":}',
        b'\x00\x00\x00\x09{"a":NaN}',
        (10**5).to_bytes(4, "big") + b"[" * 10**5,
        b"\x00\x00\x20\x00" + b'{"a":' + b"9" * 8186 + b"}",
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",  # a pickle
    ],
)
def test_a_header_that_is_none_is_refused(ends, data):
    channel, theirs = ends
    threading.Thread(target=lambda: (theirs.sendall(data), theirs.shutdown(socket.SHUT_WR)), daemon=True).start()

    with pytest.raises((Malformed, Ended)):
        channel.header(time.monotonic() + 20)


def test_one_deadline_holds_for_all_of_an_answer(ends):
    channel, theirs = ends
    is_over = threading.Event()

    def dribble():
        theirs.sendall((100).to_bytes(4, "big"))
        while not is_over.wait(0.01):
            theirs.sendall(b" ")

    thread = threading.Thread(target=dribble)
    thread.start()
    with pytest.raises(TimeoutError):
        channel.header(time.monotonic() + 0.2)
    is_over.set()
    thread.join()


def test_a_child_that_takes_nothing_is_left_at_the_deadline(ends):
    channel, _ = ends
    with pytest.raises(TimeoutError):
        channel.send(bytes(1 << 24), time.monotonic() + 0.1)


# What code in the child does in place of an answer, and what is said of it.
ATTACKS = {
    "a header without end": ("while True: end.sendall(b'7' * 65536)", "no proper answer"),
    "a length beyond memory": ("end.sendall(b'\\xff' * 64)\ntime.sleep(60)", "no proper answer"),
    "an array beyond memory": (f"send({VIDEO | {'shape': [2**40, 4, 6, 3]}!r})\ntime.sleep(60)", "no proper answer"),
    "an array of objects": (f"send({VIDEO | {'dtype': 'object'}!r}, b'x' * 99)\ntime.sleep(60)", "no proper answer"),
    "another kind of result": (f"send({AUDIO!r}, bytes(400))\ntime.sleep(60)", "no proper answer"),
    "an exception of any kind": ("send({'is': 'error', 'kind': 'SystemExit', 'text': ''})", "no proper answer"),
    "a file that was not lent": ("send({'is': 'open', 'number': 7})\ntime.sleep(60)", "no proper answer"),
    "a file beside the file": ("send({'is': 'open', 'number': 0, 'member': '../x'})\ntime.sleep(60)", "no proper"),
    "killed in mid-header": ("end.sendall(b'\\0\\0\\0\\x09{')\nos.kill(os.getpid(), 9)", "made the decoder fail"),
    "killed in mid-array": (f"send({VIDEO!r}, b'x')\nos.kill(os.getpid(), 9)", "made the decoder fail"),
    "closed in mid-array": (f"send({VIDEO!r}, b'x')\nend.close()\nos.abort()", "made the decoder fail"),
}


@pytest.fixture(scope="module")
def attacked():
    with IsolatedMedia(seconds=60.0, num_workers=1) as isolated:
        yield isolated


@pytest.mark.parametrize(("code", "said"), ATTACKS.values(), ids=ATTACKS)
def test_s09_an_answer_that_is_none_is_an_error_and_the_process_is_replaced(attacked, clip, code, said):
    lost = attacked.num_lost

    with pytest.raises(MediaError, match=said):
        attacked.open_video(clip, taken_over(code))

    assert attacked.num_lost == lost + 1
    assert not attacked.pids


def test_s09_the_next_file_is_read(attacked, clip):
    assert len(attacked.open_video(clip)) == 8


def test_an_answer_that_dribbles_is_cut_at_the_clock(clip):
    with IsolatedMedia(seconds=60.0, num_workers=1) as isolated:
        isolated.probe(clip)  # started
        isolated.seconds = 0.4
        started = time.monotonic()
        with pytest.raises(MediaError, match=r"took more than 0\.4 s"):
            isolated.open_video(clip, taken_over(f"send({VIDEO!r})\nwhile True: end.sendall(b'x'); time.sleep(0.05)"))
        assert time.monotonic() - started < 10  # a generous bound: it must not run to the end of the array


def test_what_a_child_says_unasked_never_becomes_the_answer_to_the_next_file(isolated, clip):
    forged = VIDEO | {"shape": [8, 2, 2, 3], "num_indices": 0}
    later = f"threading.Timer(0.05, send, ({forged!r}, bytes(160))).start()"
    with pytest.raises(MediaError, match="honest"):
        isolated.open_video(clip, taken_over(f"{later}\nraise MediaError('honest')"))
    (before,) = isolated.pids
    assert select.select([isolated._processes[0]._end], [], [], 20)[0]  # it is there

    assert isolated.open_video(clip).frames.shape == (8, 32, 48, 3)
    assert isolated.pids != [before]
