"""The model as the demo uses it: files of strangers go through processes of their own, answers come in pieces."""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from avllm.demo.config import DemoConfig
from avllm.demo.evidence import Evidence, readable_timings
from avllm.demo.reading import Kind, Medium, fit, loudness, to_jpeg
from avllm.errors import ConfigError, MediaError
from avllm.media import FbankConfig, Limits, SegmentConfig, heard_spans
from avllm.media.isolated import IsolatedMedia
from avllm.media.mel import segment_ranges

if TYPE_CHECKING:
    from avllm.chat import Assistant, Session
    from avllm.demo.conversation import Settings

POSTER_SIDE, THUMB_SIDE, NUM_BARS = 640, 240, 150


class DemoModel:
    """An assistant, and the door through which it reads files.

    Args:
        assistant: who answers.
        door: `avllm.media.IsolatedMedia`, or the module `avllm.media` itself.
        config: of the demo.
    """

    def __init__(self, assistant: "Assistant", door: Any, config: DemoConfig) -> None:
        self.assistant, self.door, self.config = assistant, door, config
        assistant.processor.door = door

    @classmethod
    def load(cls, config: DemoConfig) -> "DemoModel":
        """Loads the model that the configuration names.

        Raises:
            CheckpointError: there is no such model, or it is damaged.
            ConfigError: a branch is asked for that the model does not have.
        """
        from avllm.chat import load

        assistant = load(config.model)
        missing = [name for name in config.media.branches if name not in assistant.processor.branches]
        if missing:
            raise ConfigError(
                f"media.branches: model {config.model} has no branch {missing[0]}; "
                f"it has: {', '.join(assistant.processor.branches)}"
            )
        limits = Limits(file_bytes=config.media.max_upload_mb * 2**20, seconds=config.media.max_seconds)
        door = IsolatedMedia(seconds=config.media.decode_seconds, limits=limits, num_workers=config.page.max_concurrent)
        return cls(assistant, door, config)

    def __enter__(self) -> "DemoModel":
        return self

    def __exit__(self, *error: object) -> None:
        self.door.close()

    def new_session(self) -> "Session":
        """A conversation that has not begun."""
        return self.assistant.chat()

    def num_frames(self, asked: int | None) -> int:
        """How many frames of a video are looked at."""
        return asked or self.assistant.processor.branches["video"].media.num_frames

    def inspect(self, path: Path, name: str) -> Medium:
        """Looks what a file is, and decodes one frame or all of its sound.

        Raises:
            MediaError: it cannot be read, is over a limit, or is of a kind that this demo does not take.
        """
        try:
            medium = self._inspect(path, name)
        except MediaError as error:
            raise type(error)(str(error).removeprefix(f"{path.name}: ")) from error
        if medium.kind == "audio" and "audio" not in self.config.media.branches:
            raise MediaError("a sound, and this demo looks at pictures only; add a video or an image")
        return medium

    def _inspect(self, path: Path, name: str) -> Medium:
        tracks = {stream.kind for stream in self.door.probe(path).streams}
        kinds: dict[str, Kind] = {"video": "video", "image": "image", "audio": "audio"}
        kind: Kind | None = next((kinds[name] for name in kinds if name in tracks), None)
        if kind is None:
            raise MediaError("holds neither picture nor sound; expected a video, an image or a sound")
        if kind == "audio":
            audio = self.door.open_audio(path, sample_rate=self._segments().sample_rate)
            shown = {"sound": (loudness(audio.waveform, NUM_BARS), audio.duration_s)}
            return Medium(path=path, kind=kind, name=name, duration_s=audio.duration_s, has_audio=True, shown=shown)
        if kind == "image":
            video = self.door.open_image(path)
        else:
            video = self.door.open_video(path, self.door.Sampling(kind="middle", num_frames=1))
        height, width = video.frames.shape[1:3]
        return Medium(
            path=path,
            kind=kind,
            name=name,
            duration_s=video.duration_s,
            size=(width, height),
            has_audio=video.has_audio,
            poster=to_jpeg(video.frames[0], longest=POSTER_SIDE),
        )

    def stream(
        self, session: "Session", question: str, settings: "Settings", medium: Medium | None
    ) -> Generator[str, None, None]:
        """The answer in pieces.

        Args:
            medium: given when the conversation begins (again) with it; None when the session has it already.

        Raises:
            AvllmError: the file cannot be read, sound is required and there is none, the conversation is too long.
        """
        sources: dict[str, Any] = {}
        if medium is not None:
            session.reset()
            sources = self._sources(medium, settings)
        sampling = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}
        yield from session.stream(
            question,
            **sources,
            max_new_tokens=settings.max_new_tokens,
            **(sampling if settings.temperature > 0 else {"do_sample": False}),
        )

    def _sources(self, medium: Medium, settings: "Settings") -> dict[str, Any]:
        if medium.kind == "video":
            return {"video": medium.path, "audio_mode": settings.audio, "num_frames": settings.frames}
        if medium.kind == "image" and settings.audio == "require":
            raise MediaError("sound is required, but a picture has none; set Sound to Auto")
        if medium.kind == "audio" and settings.audio == "off":
            raise MediaError("sound is switched off, and this file is nothing but sound; set Sound to Auto")
        return {medium.kind: medium.path}

    def evidence(self, session: "Session", medium: Medium, settings: "Settings") -> Evidence | None:
        """What the session's last answer was made from; None when it cannot be shown."""
        reply = session.last
        if reply is None:
            return None
        has_seen = medium.kind in ("video", "image") and medium.kind in reply.streams_used
        has_heard = "audio" in reply.streams_used
        frames = self._frames(medium, settings) if has_seen else ()
        peaks, seconds = self._sound(medium) if has_heard else (None, 0.0)
        return Evidence(
            streams=self._streams(medium, settings, len(frames), has_heard),
            frames=frames,
            peaks=peaks,
            sound_seconds=seconds,
            segments=self._spans(medium, seconds) if has_heard else (),
            timings=readable_timings(reply.timings_s),
            model=Path(reply.model).name,
        )

    def _streams(
        self, medium: Medium, settings: "Settings", num_frames: int, has_heard: bool
    ) -> list[tuple[str, bool, str]]:
        if medium.kind == "audio":
            picture = ("video", False, "none in this file")
        else:
            picture = ("video", num_frames > 0, f"{num_frames} frame{'s' * (num_frames != 1)}")
        if "audio" not in self.config.media.branches:
            return [picture]
        if has_heard:
            return [picture, ("audio", True, self._heard(medium))]
        if medium.has_audio and settings.audio == "off":
            return [picture, ("audio", False, "switched off")]
        return [picture, ("audio", False, "none in this file")]

    def _frames(self, medium: Medium, settings: "Settings") -> list[tuple[float, bytes]]:
        """The frames that are given to the model, large enough to be looked at."""
        key = ("frames", settings.frames)
        if key not in medium.shown:
            assert medium.size is not None
            size = fit(*medium.size, THUMB_SIDE)
            if medium.kind == "image":
                video = self.door.open_image(medium.path, size=size)
            else:
                video = self.door.open_video(medium.path, self._sampling(settings.frames), size=size)
            medium.shown[key] = [
                (float(time_s), to_jpeg(frame)) for time_s, frame in zip(video.times_s, video.frames, strict=True)
            ]
        return medium.shown[key]

    def _sound(self, medium: Medium) -> tuple[Float32[np.ndarray, " n"], float]:
        """Loudness over time, and the length in seconds."""
        if "sound" not in medium.shown:
            audio = self.door.open_audio(medium.path, sample_rate=self._segments().sample_rate)
            medium.shown["sound"] = (loudness(audio.waveform, NUM_BARS), audio.duration_s)
        return medium.shown["sound"]

    def _heard(self, medium: Medium) -> str:
        """How much of the sound is heard, in words."""
        spans = self._spans(medium, self._sound(medium)[1])
        longest = max(end - start for start, end in spans)
        return f"{len(spans)} segment{'s' * (len(spans) != 1)} of {longest:.3g} s"

    def _spans(self, medium: Medium, seconds: float) -> list[tuple[float, float]]:
        """Start and end in seconds of the segments that are heard."""
        settings = self._segments()
        rate = settings.sample_rate
        if isinstance(settings, FbankConfig):
            ranges = heard_spans(round(seconds * rate), rate, settings, is_video=medium.kind == "video")
        else:
            ranges = segment_ranges(round(seconds * rate), settings)
        return [(start / rate, min(end / rate, seconds)) for start, end in ranges]

    def _sampling(self, num_frames: int | None) -> Any:
        """The frames that the processor takes."""
        media = self.assistant.processor.branches["video"].media
        return self.door.Sampling(
            kind=media.sampling, num_frames=num_frames or media.num_frames, fps=media.fps, max_frames=media.max_frames
        )

    def _segments(self) -> SegmentConfig | FbankConfig:
        return self.assistant.processor.branches["audio"].media
