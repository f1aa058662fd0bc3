"""Media as the decoder gets them, decoded and encoded once."""

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch

from avllm import media
from avllm.chat.asked import Asked, AudioMode, Look
from avllm.chat.store import MediaStore, Perceived
from avllm.errors import ConfigError, MediaError, NoAudioStream
from avllm.media import content_key, resolve
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Loaded
from avllm.model.options import VideoOptions, checked, for_kind, named, sampling_of
from avllm.model.plan import Workload, out_of_memory_named
from avllm.model.prompts import Kind, Medium

SEEN: tuple[Kind, ...] = ("image", "video")
logger = logging.getLogger(__name__)
System = TypeVar("System", bound=Any)


class Perceiver:
    """The eyes and ears of a system.

    Args:
        model: the system's model.
        processor: its processor.
        name: how errors and replies name it.
        max_media_bytes: of encoded media that are kept for later questions.
    """

    def __init__(
        self,
        model: AvllmForConditionalGeneration,
        processor: AvllmProcessor,
        *,
        name: str = "",
        max_media_bytes: int = 256 * 2**20,
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.store = MediaStore(max_media_bytes)

    @torch.no_grad()
    def perceive(self, source: Any, kind: Kind, **options: Any) -> Perceived:
        """Decodes and encodes a medium, or takes it from the store.

        Args:
            source: whatever `avllm.media` opens.
            kind: what to read it as; the sound of a video is read as "audio".
            options: see `AvllmProcessor.read`.

        Raises:
            MediaError: it cannot be read.
            ConfigError: an option is wrong.
        """
        options = named(options)
        key = content_key(source, {"kind": kind, **options})
        found = self.store.get(key)
        if found is not None:
            return found
        started = time.perf_counter()
        loaded = self.processor.read(source, kind, **options)
        decoded = time.perf_counter()
        with out_of_memory_named(self._config, lambda: self._workload(loaded), self.model.device):
            tokens = self.model.branch_tokens(loaded.branch, [loaded.values.to(self.model.device)], None)
        perceived = Perceived(
            key=key,
            medium=self.processor.medium(loaded),
            tokens=tokens,
            decode_s=decoded - started,
            encode_s=time.perf_counter() - decoded,
            num_damaged=loaded.num_damaged,
        )
        self.store.put(perceived)
        return perceived

    @property
    def _config(self) -> AvllmConfig:
        assert isinstance(self.model.config, AvllmConfig)
        return self.model.config

    def _workload(self, loaded: Loaded) -> Workload:
        num_frames = len(loaded.values) if loaded.kind == "video" else None
        return Workload(dtype=self.model.dtype, num_frames=num_frames)

    def perceive_all(self, **given: Any) -> list[Perceived]:
        """The media of one turn; a sound before or after its picture, as the prompt of the system has it.

        Args:
            given: the media of a turn and how they are read, as in `Session.ask`.

        Raises:
            NoAudioStream: sound is required and there is none.
            MediaError: anything else that is wrong with a medium.
            ConfigError: an option is unknown, wrong, or of no use for the media.
        """
        return self.look(Asked.checked("", **given))

    def look(self, asked: Asked) -> list[Perceived]:
        """The media of a question; see `perceive_all`."""
        self.check(asked)
        result: list[Perceived] = []
        for number, look in enumerate(map(_resolved, asked.looks)):
            shown = [
                self.perceive(look.sources[kind], kind, **for_kind(kind, look.options))
                for kind in SEEN
                if kind in look.sources
            ]
            heard = self._hear(look, asked.audio_mode)
            both = [*shown, *heard] if self._sees_first else [*heard, *shown]
            result += [replace(item, part=number) for item in both]
        return result

    def check(self, asked: Asked) -> None:
        """What can be said before anything is opened.

        Raises:
            ConfigError: the system has no branch for a medium, or an option is wrong.
        """
        for look in asked.looks:
            for kind in look.sources:
                self.processor.check_reading(kind, **for_kind(kind, look.options))
            if asked.audio_mode == "require" and "video" in look.sources and "audio" not in self.processor.branches:
                raise ConfigError(f"model {self.name}: sound is required, but this system has no audio branch")

    def least(self, asked: Asked) -> tuple[list[Medium], list[int]]:
        """Media of a question that is not opened yet, of as many tokens as they take at the least; with their looks."""
        media, parts = list[Medium](), list[int]()
        for number, look in enumerate(asked.looks):
            for kind in look.sources:
                branch = "audio" if kind == "audio" else "video"
                count = self._least_tokens(kind, branch, for_kind(kind, look.options))
                media.append(Medium(kind=kind, branch=branch, num_tokens=count))
                parts.append(number)
        return media, parts

    def _least_tokens(self, kind: Kind, branch: str, options: Mapping[str, Any]) -> int:
        settings = self.processor.branches[branch].media
        if kind == "video":
            sampling = sampling_of(checked(VideoOptions, options), settings, None)
            count = sampling.num_frames if sampling.is_exact else 1
        else:
            count = getattr(settings, "image_frames" if kind == "image" else "num_segments", 1)
        try:
            return self.processor.num_tokens(branch, count)
        except ValueError:  # fewer frames than the connector takes: the medium will have more of them
            return 0

    @property
    def _sees_first(self) -> bool:
        """Whether the prompt writes any media in their order, a sound behind its picture."""
        forms = self.processor.prompt.chat.media
        pair = forms.get("audio+video", "")
        return "*" in forms and pair.find("{video}") < pair.find("{audio}")

    def _hear(self, look: Look, mode: AudioMode) -> list[Perceived]:
        """The sound that was given, or else that of the video."""
        own = "audio" not in look.sources
        source = look.sources.get("video" if own else "audio")
        if source is None or (own and (mode == "off" or "audio" not in self.processor.branches)):
            return []
        try:
            return [self.perceive(source, "audio", **for_kind("audio", look.options))]
        except NoAudioStream:
            if mode == "require" or not own:
                raise
            logger.info("no audio track; answering from the picture alone")
            return []


def reading_through(system: System, reader: Any) -> System:
    """The same assistant, whose media another reads: decoder processes, in place of this process.

    One that has a reader of its own keeps that. The model and what it has seen are shared.

    Args:
        system: an assistant, which stays as it is.
        reader: `avllm.media`, or what takes its place.
    """
    if reader is media or getattr(system.processor, "door", media) is not media:
        return system
    other, other.processor = copy.copy(system), copy.copy(system.processor)
    other.processor.door = reader
    return other


def _resolved(look: Look) -> Look:
    """The same media, each told apart and hashed once, though a video is a source of its sound as well."""
    return replace(look, sources={kind: _resolve(source, look.options) for kind, source in look.sources.items()})


def _resolve(source: Any, options: Mapping[str, Any]) -> Any:
    try:
        return resolve(source, options.get("limits"))
    except MediaError:
        return source  # what is wrong with it, the door says
