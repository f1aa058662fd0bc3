"""Sampling frames of short and long clips: avllm beside decord, PyAV decoding everything, and torchcodec.

    python -m benchmarks.decode [--json] [--rounds N] [--skip-decode-all]

Every measurement is a process of its own: opening the file, sampling, resizing to 224 x 224; imports do not count. The
clips are made here: 360p H.264 at 30 frames/s, keyframes every 250 frames, B-frames.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from avllm.media import write_video
from benchmarks.common import Figure, arguments, in_child, interleaved, machine, median, report, version

SIDE, FPS, WIDTH, HEIGHT = 224, 30, 640, 360
ARMS = ("avllm", "decord", "pyav_all", "torchcodec")


def main() -> None:
    parser = arguments("Frames per second of sampling, and memory.")
    parser.add_argument("--skip-decode-all", action="store_true", help="leave out decoding all of the long clip (slow)")
    parser.add_argument("--child", nargs=3, metavar=("ARM", "CLIP", "FRAMES"), help="one measurement (used inside)")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child[0], args.child[1], int(args.child[2]))))
        return
    figures: dict[str, Figure] = {}
    facts = machine("av", "numpy", "decord", "torchcodec")
    with tempfile.TemporaryDirectory() as folder:
        short, long = make_clips(Path(folder))
        arms = [arm for arm in ARMS if loads(arm, str(short), figures)]
        for clip, path, goal in (("10s", short, 0.8), ("10min", long, 1.0)):
            for num_frames in (8, 32):
                some = [arm for arm in arms if arm != "pyav_all" or (clip == "10s") or not args.skip_decode_all]
                figures |= compare(clip, path, num_frames, some, goal, args.rounds)
    report(figures, facts, as_json=args.json)


def compare(clip: str, path: Path, num_frames: int, arms: list[str], goal: float, rounds: int) -> dict[str, Figure]:
    """Figures of one clip and one number of frames."""
    is_slow = clip == "10min"
    fast = {arm: _child(arm, path, num_frames) for arm in arms if not (is_slow and arm == "pyav_all")}
    results = interleaved(fast, rounds)
    if is_slow and "pyav_all" in arms:
        results["pyav_all"] = [_child("pyav_all", path, num_frames)()]
    name, figures = f"{clip}_{num_frames}", {}
    for arm, runs in results.items():
        rate, cpu = (median([num_frames / r["seconds"] for r in runs]), median([r["cpu_seconds"] for r in runs]))
        note = f"{median([r['seconds'] for r in runs]):.3f} s, {cpu:.3f} s of processor time"
        figures[f"frames_per_s_{name}_{arm}"] = Figure(value=rate, against=_peer(arm), note=note)
        memory = median([r["extra_mib"] for r in runs])
        figures[f"extra_mib_{name}_{arm}"] = Figure(value=memory, better="lower", against=_peer(arm))
    if "decord" in results:
        pairs = list(zip(results["avllm"], results["decord"], strict=True))
        speed = median([theirs["seconds"] / ours["seconds"] for ours, theirs in pairs])
        work = median([theirs["cpu_seconds"] / ours["cpu_seconds"] for ours, theirs in pairs])
        memory = median([ours["extra_mib"] / theirs["extra_mib"] for ours, theirs in pairs])
        note = f"median of {len(pairs)} pairs; by processor time {work:.2f}"
        figures[f"speed_{name}"] = Figure(value=speed, goal=goal, against=_peer("decord"), note=note)
        figures[f"memory_{name}"] = Figure(value=memory, goal=1.0, better="lower", against=_peer("decord"))
    return figures


def loads(arm: str, clip: str, figures: dict[str, Figure]) -> bool:
    """Whether a peer can be used here; said in a word when it cannot."""
    try:
        in_child("benchmarks.decode", "--child", arm, clip, "2")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        figures[f"skipped_{arm}"] = Figure(value=None, against=arm, note=f"does not load here: {reason[:120]}")
        return False
    return True


def measure(arm: str, clip: str, num_frames: int) -> dict[str, float]:
    """Seconds, processor seconds, and memory beyond the imports' of one sampling."""
    import threading

    from benchmarks.common import peak_mib, resident_mib

    work = {"avllm": _avllm, "decord": _decord, "pyav_all": _pyav_all, "torchcodec": _torchcodec}[arm]
    sample: Any = work(num_frames)  # imports
    before, peak, is_done = resident_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.wait(0.002):
            peak = max(peak, resident_mib())

    # The operating system's peak includes the imports'; it counts when the work went above it.
    imports_peak = peak_mib()
    thread = threading.Thread(target=watch)
    thread.start()
    start, cpu = time.perf_counter(), time.process_time()
    frames = sample(clip)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    is_done.set()
    thread.join()
    if frames.shape != (num_frames, SIDE, SIDE, 3):
        raise SystemExit(f"{arm} gave {frames.shape}")
    peak = max(peak, peak_mib() if peak_mib() > imports_peak else 0.0)
    return {"seconds": wall, "cpu_seconds": cpu, "extra_mib": max(0.1, peak - before)}


def _avllm(num_frames: int):
    from avllm.media import Sampling, open_video

    return lambda clip: open_video(clip, Sampling(num_frames=num_frames), size=(SIDE, SIDE)).frames


def _decord(num_frames: int):
    import decord

    def sample(clip: str) -> np.ndarray:
        reader = decord.VideoReader(clip, width=SIDE, height=SIDE)
        return reader.get_batch(np.arange(0, len(reader), len(reader) / num_frames).astype(int)).asnumpy()

    return sample


def _pyav_all(num_frames: int):
    from av.video.reformatter import VideoReformatter

    def sample(clip: str) -> np.ndarray:
        reformatter, pictures = VideoReformatter(), []
        with av.open(clip) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            wanted = set(np.arange(0, stream.frames, stream.frames / num_frames).astype(int).tolist())
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    small = reformatter.reformat(frame, width=SIDE, height=SIDE, format="rgb24")
                    pictures.append(small.to_ndarray())
        return np.stack(pictures)

    return sample


def _torchcodec(num_frames: int):
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def sample(clip: str) -> np.ndarray:
        decoder = VideoDecoder(clip, dimension_order="NHWC", num_ffmpeg_threads=0, transforms=[Resize((SIDE, SIDE))])
        count = decoder.metadata.num_frames
        return decoder.get_frames_at(np.arange(0, count, count / num_frames).astype(int).tolist()).data.numpy()

    return sample


def _child(arm: str, path: Path, num_frames: int):
    return lambda: in_child("benchmarks.decode", "--child", arm, str(path), str(num_frames))


def _peer(arm: str) -> str:
    package = {"pyav_all": "av"}.get(arm, arm)
    return f"{'PyAV, decoding all' if arm == 'pyav_all' else arm} {version(package)}"


def make_clips(folder: Path) -> tuple[Path, Path]:
    """10 s and 10 min of a moving texture with noise. The long one repeats 500 encoded frames."""
    short = write_video(folder / "short.mp4", moving(10 * FPS), FPS, gop=250, threads=2)
    piece = write_video(folder / "piece.mp4", moving(500), FPS, gop=250, threads=2)
    long = folder / "long.mp4"
    with av.open(str(long), "w") as outside:
        track = None
        for number in range(10 * 60 * FPS // 500):
            with av.open(str(piece)) as inside:
                stream = inside.streams.video[0]
                track = track or outside.add_stream_from_template(stream)
                for packet in inside.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts = (t + number * stream.duration for t in (packet.pts, packet.dts))
                        packet.stream = track
                        outside.mux(packet)
    return short, long


def moving(count: int):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (HEIGHT // 8 + 20, WIDTH // 8 + 20, 3), dtype=np.uint8)
    texture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    for number in range(count):
        y, x = int(60 + 50 * np.sin(number / 40)), int(60 + 50 * np.cos(number / 55))
        picture = texture[y : y + HEIGHT, x : x + WIDTH].astype(np.int16)
        noise = rng.integers(-4, 5, (HEIGHT, WIDTH, 1), dtype=np.int16)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
