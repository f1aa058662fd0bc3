"""The one budget for media. Every way in goes through these checks, before the memory is taken."""

from dataclasses import dataclass

from avllm.errors import MediaError

_MIB = 2**20
_LONGEST_SIDE = 1 << 20  # of a frame; beyond it resizing alone would take gigabytes


def size_text(width: int, height: int) -> str:
    """`640x480`; of sizes that no picture has with a word between, as `0x` and digits would look like an address."""
    return f"{width}x{height}" if max(width, height) < 100_000 else f"{width} by {height}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one medium may cost. The defaults suit a laptop; a server sets its own.

    Args:
        file_bytes: size of a file on disk, or of an array; it is read piece by piece.
        memory_bytes: size of a medium handed over as bytes or a `data:` URL.
        pixels: of one frame or image, as stored (8192 x 8192 by default).
        frames: sampled from a video, a list, an array or a folder; held by an animated image.
        animation_pixels: of an animated image, of all frames that must be put together to see those that are wanted.
        seconds: length of a video or a sound.
        video_bytes: of all sampled frames together, as returned.
        audio_bytes: of the decoded waveform, as returned (float32).
    """

    file_bytes: int = 8 * 1024 * _MIB
    memory_bytes: int = 512 * _MIB
    pixels: int = 8192 * 8192
    frames: int = 4096
    animation_pixels: int = 64 * 8192 * 8192
    seconds: float = 6 * 3600.0
    video_bytes: int = 1024 * _MIB
    audio_bytes: int = 1024 * _MIB

    def check_file_bytes(self, count: int) -> None:
        """Raises MediaError when a file or an array is larger than allowed."""
        self._check("file_bytes", "the medium", count, self.file_bytes, "bytes", "cut it")

    def check_memory_bytes(self, count: int) -> None:
        """Raises MediaError when the bytes handed over are more than allowed."""
        self._check("memory_bytes", "the medium", count, self.memory_bytes, "bytes", "pass a path")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises MediaError when one frame has more pixels than allowed, or none."""
        if width < 1 or height < 1:
            raise MediaError(f"the picture is {size_text(width, height)}; expected at least 1x1: the file is damaged")
        if max(width, height) > _LONGEST_SIDE:
            raise MediaError(f"a frame of {size_text(width, height)} is longer than {_LONGEST_SIDE} pixels; cut it")
        self._check(
            "pixels", f"a frame of {size_text(width, height)}", width * height, self.pixels, "pixels", "make it smaller"
        )

    def check_frames(self, count: int, what: str = "the sampling") -> None:
        """Raises MediaError when more frames are asked for, or held by an animation, than allowed."""
        self._check("frames", what, count, self.frames, "frames", "sample fewer frames or cut it")

    def check_animation(self, num_pixels: int) -> None:
        """Raises MediaError when more pixels of an animation would be put together than allowed."""
        what, advice = "what is seen of the animation", "sample its beginning or make it smaller"
        self._check("animation_pixels", what, num_pixels, self.animation_pixels, "pixels", advice)

    def check_seconds(self, seconds: float) -> None:
        """Raises MediaError when the medium is longer than allowed."""
        self._check("seconds", "the medium", seconds, self.seconds, "seconds", "cut it")

    def check_video_bytes(self, num_frames: int, height: int, width: int, item_bytes: int = 1) -> None:
        """Raises MediaError when the sampled frames would take more memory than allowed."""
        what, count = f"{num_frames} frames of {size_text(width, height)}", num_frames * height * width * 3 * item_bytes
        self._check("video_bytes", what, count, self.video_bytes, "bytes", "sample fewer or resize")

    def check_audio_bytes(self, num_channels: int, num_samples: int) -> None:
        """Raises MediaError when the decoded sound would take more memory than allowed."""
        what = f"{num_samples} samples of {num_channels} channels"
        self._check("audio_bytes", what, num_channels * num_samples * 4, self.audio_bytes, "bytes", "cut the sound")

    def _check(self, name: str, what: str, count: float, most: float, unit: str, advice: str) -> None:
        if count > most:
            shown = f"{count:.0f}" if unit != "seconds" else f"{count:.1f}"
            raise MediaError(
                f"{what} has {shown} {unit}, the limit is {most:.12g} {unit}; {advice}, or raise Limits.{name}"
            )
