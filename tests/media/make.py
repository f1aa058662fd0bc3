"""Media files for the tests, made by PyAV's own encoders, small and in a moment."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avllm.media import write_video

HEIGHT, WIDTH = 96, 128


def numbered(count: int) -> list[np.ndarray]:
    """Frames that show their number as 8 black or white columns, which no codec confuses."""
    frames = []
    for number in range(count):
        columns = [255 if number >> bit & 1 else 0 for bit in range(8)]
        row = np.repeat(np.array(columns, np.uint8), WIDTH // 8)
        frames.append(np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy())
    return frames


def number_of(frame: np.ndarray) -> int:
    """Reads the number back, at any size."""
    height, width = frame.shape[:2]
    centres = [int((bit + 0.5) * width / 8) for bit in range(8)]
    return sum((frame[height // 2, x].mean() > 128) << bit for bit, x in enumerate(centres))


def numbers(video) -> list[int]:
    """Numbers of all frames."""
    return [number_of(frame) for frame in video.frames]


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    """A sine of half loudness."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def clip(path: Path, count: int = 60, fps: float = 24, *, sound: bool = True, gop: int = 12, **options) -> Path:
    """A numbered clip, with keyframes every `gop` frames."""
    waveform = tone(count / fps) if sound else None
    return write_video(path, numbered(count), fps, waveform=waveform, gop=gop, **options)


def timed(path: Path, times_ms: list[int], *, codec: str = "h264", gop: int = 8, options: dict | None = None) -> Path:
    """A numbered clip whose frame i begins at times_ms[i]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = gop
        for time, pixels in zip(times_ms, numbered(len(times_ms)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(source: Path, path: Path, *, shift_s: float = 0.0, rotation: int | None = None, **options) -> Path:
    """The tracks of a file in another container, moved in time, or marked as turned."""
    with av.open(str(source)) as inside, av.open(str(path), "w", options=options) as outside:
        tracks = {stream.index: outside.add_stream_from_template(stream) for stream in inside.streams}
        if rotation is not None:
            tracks[inside.streams.video[0].index].set_display_rotation(rotation)
        for packet in inside.demux():
            if packet.dts is None:
                continue
            moved = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
            packet.stream = tracks[packet.stream_index]
            outside.mux(packet)
    return path


def plain(path: Path, count: int, codec: str, fps: int = 24) -> Path:
    """A numbered clip in any container that PyAV knows by its suffix, without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        for pixels in numbered(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def coded(
    path: Path,
    codec: str,
    count: int = 60,
    *,
    fps: Fraction = Fraction(25),
    gop: int = 12,
    options: dict[str, str] | None = None,
    times_ms: list[int] | None = None,
    sound: str | None = None,
    sound_seconds: float | None = None,
    container: str | None = None,
    first: int = 0,
) -> Path:
    """A numbered clip of any codec in any container, with sound of any codec; `times_ms` say when frames begin."""
    rate, base = 48000, Fraction(1, 1000) if times_ms else 1 / fps
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base, stream.codec_context.gop_size = base, gop
        stream.codec_context.thread_count = 1
        track = file.add_stream(sound, rate=rate, layout="mono") if sound else None
        frames = numbered(first + count)[first:]
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times_ms[number] if times_ms else number), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track is not None:
            seconds = sound_seconds or float(count / fps)
            for packet in _sound_packets(track, tone(seconds, rate), rate):
                file.mux(packet)
    return path


def _sound_packets(track, waveform: np.ndarray, rate: int, layout: str = "mono") -> list:
    """A waveform through the encoder of a track."""
    packets, codec = [], track.codec_context
    resampler = av.AudioResampler(format=codec.format, layout=layout, rate=rate, frame_size=codec.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for part in (frame, None):
        for piece in resampler.resample(part):
            packets += track.encode(piece)
    return packets + track.encode(None)


def sounding(path: Path, codec: str, waveform: np.ndarray, rate: int, *, container: str | None = None) -> Path:
    """A file of sound alone, of any codec in any container."""
    with av.open(str(path), "w", format=container) as file:
        layout = "stereo" if codec == "vorbis" else "mono"  # FFmpeg's own encoder knows no other
        track = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        for packet in _sound_packets(track, waveform, rate, layout):
            file.mux(packet)
    return path


def played(path: Path) -> list[int]:
    """Numbers of the frames that a player shows: decoded from the start, what cannot be decoded left out."""
    shown = []
    with av.open(str(path)) as file:
        for packet in file.demux(video=0):
            try:
                shown += [number_of(frame.to_ndarray(format="rgb24")) for frame in packet.decode()]
            except av.FFmpegError:
                continue
    return shown


def joined(path: Path, *parts: Path) -> Path:
    """Files joined bytewise."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
