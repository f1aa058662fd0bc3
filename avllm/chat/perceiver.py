"""Media as the decoder gets them, decoded and encoded once."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from avllm.chat.store import MediaStore, Perceived
from avllm.errors import ConfigError, DataError, MediaError, NoAudioStream
from avllm.media import content_key
from avllm.model import AvllmForConditionalGeneration, AvllmProcessor
from avllm.model.prompts import Kind

AudioMode = Literal["auto", "require", "off"]
logger = logging.getLogger(__name__)


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
        """
        try:
            key = content_key(source, {"kind": kind, **options})
        except OSError as error:  # a file that may not be read, a disk that fails
            raise MediaError(f"{error.filename or source}: {error.strerror or error}") from error
        found = self.store.get(key)
        if found is not None:
            return found
        started = time.perf_counter()
        loaded = self.processor.read(source, kind, **options)
        decoded = time.perf_counter()
        tokens = self.model.branch_tokens(loaded.branch, [loaded.values.to(self.model.device)], None)
        perceived = Perceived(
            key=key,
            medium=self.processor.medium(loaded),
            tokens=tokens,
            decode_s=decoded - started,
            encode_s=time.perf_counter() - decoded,
        )
        self.store.put(perceived)
        return perceived

    def perceive_all(
        self,
        *,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        media: Sequence[Mapping[str, Any]] = (),
        audio_mode: AudioMode = "auto",
        num_frames: int | None = None,
        **options: Any,
    ) -> list[Perceived]:
        """The media of one turn; a sound before or after its picture, as the prompt of the system has it.

        Args:
            video: source of a video; its sound is used too, as `audio_mode` says.
            image: source of an image.
            audio: source of a sound, in place of the video's own.
            media: further media as content parts, `{"type": "video", "video": SOURCE}`, in their order.
            audio_mode: of a video's sound: "auto" if there is any and the system hears, "require" it, "off".
            num_frames: frames to look at.
            options: fields of `avllm.media.Sampling` and `limits`.

        Raises:
            NoAudioStream: sound is required and there is none.
            MediaError: anything else that is wrong with a medium.
        """
        seen = {"num_frames": num_frames, **options} if num_frames is not None else options
        heard, shown = [], []
        sound = video if audio is None else audio
        if sound is not None and (audio is not None or audio_mode != "off"):
            heard = self._hear(sound, "require" if audio is not None else audio_mode, options)
        if image is not None:
            shown.append(self.perceive(image, "image", **_only(options, ("limits",))))
        if video is not None:
            shown.append(self.perceive(video, "video", **seen))
        result = [*shown, *heard] if self._sees_first else [*heard, *shown]
        for part in media:
            kind, source = content_part(part)
            result += self.perceive_all(**{kind: source}, audio_mode=audio_mode, num_frames=num_frames, **options)
        return result

    @property
    def _sees_first(self) -> bool:
        """Whether the prompt writes any media in their order, a sound behind its picture."""
        forms = self.processor.prompt.chat.media
        pair = forms.get("audio+video", "")
        return "*" in forms and pair.find("{video}") < pair.find("{audio}")

    def _hear(self, source: Any, mode: AudioMode, options: Mapping[str, Any]) -> list[Perceived]:
        if "audio" not in self.processor.branches:
            if mode == "require":
                raise ConfigError(f"model {self.name}: sound is required, but this system has no audio branch")
            return []
        try:
            return [self.perceive(source, "audio", **_only(options, ("start_s", "end_s", "limits")))]
        except NoAudioStream:
            if mode == "require":
                raise
            logger.info("no audio track; answering from the picture alone")
            return []


def content_part(part: Mapping[str, Any]) -> tuple[Kind, Any]:
    """Kind and source of a content part `{"type": KIND, KIND: SOURCE}`.

    Raises:
        DataError: it has another form.
    """
    kind = part.get("type")
    if kind not in ("video", "image", "audio") or part.get(kind) is None:
        raise DataError(f'media: expected {{"type": "video"|"image"|"audio", TYPE: SOURCE}}, got keys {sorted(part)}')
    return kind, part[kind]


def _only(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}
