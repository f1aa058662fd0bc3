"""The model as the demo uses it: files of strangers go through processes of their own, answers come in pieces."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from avllm.checkpoints.hub import may_be_on_hub
from avllm.checkpoints.load import SHIPPED
from avllm.demo.config import DemoConfig
from avllm.demo.evidence import Evidence, Shown, Sound, mel_pictures, readable_timings
from avllm.demo.fairness import FairMedia
from avllm.demo.reading import Kind, Medium, fit, loudness, to_jpeg
from avllm.demo.settings import Settings
from avllm.errors import CheckpointError, ConfigError, MediaError
from avllm.media import FbankConfig, Limits, SegmentConfig, heard_spans
from avllm.media.isolated import IsolatedMedia
from avllm.media.mel import segment_ranges

if TYPE_CHECKING:
    from avllm.chat import Assistant, Session

POSTER_SIDE, THUMB_SIDE, NUM_BARS = 640, 240, 150
NUM_DECODERS = 4


class _StopWhen(StoppingCriteria):
    """Stops at the next token, also where an answer does not come in pieces."""

    def __init__(self, event: Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:  # type: ignore[override]
        return torch.full((len(input_ids),), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


class DemoModel:
    """An assistant, and the door through which it reads files.

    Args:
        assistant: who answers.
        door: `FairMedia` over `avllm.media.IsolatedMedia`, or the module `avllm.media` itself.
        config: of the demo.
    """

    def __init__(self, assistant: "Assistant", door: Any, config: DemoConfig) -> None:
        self.assistant, self.door, self.config = assistant, door, config
        assistant.processor.door = door

    @classmethod
    def load_all(cls, config: DemoConfig) -> "dict[str, DemoModel]":
        """Loads the models that the configuration names; they read files through one door.

        Raises:
            CheckpointError: there is no such model, or it is damaged.
            ConfigError: a branch is asked for that the first model does not have.
        """
        limits = Limits(file_bytes=config.media.max_upload_mb * 2**20, seconds=config.media.max_seconds)
        for name in (config.model, *config.models):
            _require_folder(name)
        seconds = config.media.decode_seconds
        door = FairMedia(
            lambda: IsolatedMedia(seconds=seconds, limits=limits, num_workers=1),
            num_decoders=max(NUM_DECODERS, config.page.max_concurrent + 1),
            wait_seconds=2 * seconds,
        )
        door.start()  # the first of them, while the models are loaded
        return {name: cls._load(name, door, config) for name in dict.fromkeys((config.model, *config.models))}

    @classmethod
    def _load(cls, name: str, door: Any, config: DemoConfig) -> "DemoModel":
        from avllm.chat import load

        assistant = load(name)
        missing = [branch for branch in config.media.branches if branch not in assistant.processor.branches]
        if missing and (name == config.model or missing != ["audio"]):
            raise ConfigError(
                f"media.branches: model {name} has no branch {missing[0]}; "
                f"it has: {', '.join(assistant.processor.branches)}"
            )
        if missing:
            config = replace(config, media=replace(config.media, branches=("video",), audio="off"))
        return cls(assistant, door, config)

    def __enter__(self) -> "DemoModel":
        return self

    def __exit__(self, *error: object) -> None:
        self.door.close()

    def new_session(self) -> "Session":
        """A conversation that has not begun."""
        return self.assistant.chat()

    @property
    def name(self) -> str:
        """As the page shows it."""
        return Path(self.assistant.name).name

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
            shown = {"waveform": (loudness(audio.waveform, NUM_BARS), audio.duration_s)}
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
        self, session: "Session", question: str, settings: Settings, media: Sequence[Medium], stop: Event | None = None
    ) -> Generator[str, None, None]:
        """The answer in pieces; with beams it is one piece.

        Args:
            session: the conversation; it grows by the question, also when the answer is stopped.
            question: any text.
            settings: how to read the media and how to write.
            media: files that come with this question.
            stop: ends the answer at the next token.

        Raises:
            AvllmError: a file cannot be read, sound is required and there is none, the conversation is too long.
        """
        session.system = settings.system
        criteria = StoppingCriteriaList([_StopWhen(stop)] if stop is not None else [])
        yield from session.stream(
            question, **self._given(settings, media), stopping_criteria=criteria, **settings.generation()
        )

    def read_ahead(self, settings: Settings, media: Sequence[Medium]) -> None:
        """Decodes and encodes files as `stream` is about to, which then finds it done.

        Raises:
            AvllmError: as `stream`, of the media.
        """
        if media:
            given = self._given(settings, media)
            self.assistant.perceive_all(**{name: value for name, value in given.items() if value is not None})

    def _given(self, settings: Settings, media: Sequence[Medium]) -> dict[str, Any]:
        """Files and how they are read, as `Session.ask` takes them."""
        parts = [self._part(medium, settings) for medium in media]
        return {
            "media": parts,
            "audio_mode": "off" if settings.streams == "only" else settings.streams,
            "num_frames": settings.frames if any(part["type"] == "video" for part in parts) else None,
        }

    def _part(self, medium: Medium, settings: Settings) -> Mapping[str, Any]:
        """A file as a content part."""
        kind = medium.kind
        if kind == "audio" and "audio" not in self.config.media.branches:
            raise MediaError(f"{medium.name}: a sound, and {self.name} does not hear; choose another model or file")
        if kind == "image" and settings.streams in ("require", "only"):
            raise MediaError(f"{medium.name}: sound is required, but a picture has none; set Use to Auto")
        if kind == "audio" and settings.streams == "off":
            raise MediaError(f"{medium.name}: nothing but sound, which is switched off; set Use to Auto")
        if kind == "video" and settings.streams == "only":
            kind = "audio"
        return {"type": kind, kind: medium.path}

    def evidence(self, session: "Session", media: Sequence[Medium], settings: Settings) -> Evidence | None:
        """What the session's last answer was made from; None when nothing has been answered."""
        reply = session.last
        if reply is None:
            return None
        return Evidence(
            media=[self._shown(medium, settings, reply.streams_used) for medium in media],
            timings=readable_timings(reply.timings_s),
            model=self.name,
        )

    def _shown(self, medium: Medium, settings: Settings, used: Sequence[str]) -> Shown:
        is_seen = medium.kind in used and medium.kind != "audio" and settings.streams != "only"
        hears = "audio" in self.config.media.branches and "audio" in used and medium.has_audio
        is_heard = hears and settings.streams != "off"
        frames = self._frames(medium, settings) if is_seen else ()
        sound = self._sound(medium) if is_heard else None
        return Shown(
            name=medium.name, streams=self._streams(medium, settings, len(frames), sound), frames=frames, sound=sound
        )

    def _streams(
        self, medium: Medium, settings: Settings, num_frames: int, sound: Sound | None
    ) -> list[tuple[str, bool, str]]:
        if medium.kind == "audio":
            picture = ("video", False, "none in this file")
        elif num_frames == 0:
            picture = ("video", False, "switched off")
        else:
            picture = ("video", True, f"{num_frames} frame{'s' * (num_frames != 1)}")
        if "audio" not in self.config.media.branches:
            return [picture]
        if sound is not None:
            longest = max(end - start for start, end in sound.segments)
            number = len(sound.segments)
            return [picture, ("audio", True, f"{number} segment{'s' * (number != 1)} of {longest:.3g} s")]
        is_off = medium.has_audio and settings.streams == "off"
        return [picture, ("audio", False, "switched off" if is_off else "none in this file")]

    def _frames(self, medium: Medium, settings: Settings) -> list[tuple[float, bytes]]:
        """The frames that are given to the model, large enough to be looked at."""
        key = ("frames", self.name, settings.frames)
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

    def _sound(self, medium: Medium) -> Sound:
        """The sound of a file and the log-mel pictures that the model is given of it."""
        if ("sound", self.name) not in medium.shown:
            if "waveform" not in medium.shown:
                audio = self.door.open_audio(medium.path, sample_rate=self._segments().sample_rate)
                medium.shown["waveform"] = (loudness(audio.waveform, NUM_BARS), audio.duration_s)
            peaks, seconds = medium.shown["waveform"]
            pictures = mel_pictures(self.assistant.processor.read(medium.path, "audio").values.float().numpy())
            medium.shown["sound", self.name] = Sound(
                peaks=peaks,
                seconds=seconds,
                segments=self._spans(medium, seconds),
                mels=[to_jpeg(picture) for picture in pictures],
            )
        return medium.shown["sound", self.name]

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


def _require_folder(name: str) -> None:
    """Says in one line how to come by a model folder that is not there."""
    if name not in SHIPPED and not may_be_on_hub(name) and not Path(name).is_dir():
        raise CheckpointError(
            f"model {name}: no such folder; make it of the published weights: avllm convert SOURCE... --out {name} "
            f"(docs/systems.md says which), or name another folder with --model"
        )
