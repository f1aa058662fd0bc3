"""Your own data: conversations about videos, images and sounds in the JSON that such models are tuned with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avllm.data.annotated import Annotated
from avllm.data.annotations import entries, member, text
from avllm.data.records import Medium, Record, Turn, media_path
from avllm.errors import DataError

Kind = Literal["video", "image", "audio"]
KINDS: tuple[Kind, ...] = ("video", "image", "audio")  # with several kinds, videos stand first, as published
PLACES = re.compile(r"\s*<(video|image|audio)>\s*")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


class Conversations(Annotated):
    """Conversations about any number of media.

    Layouts, each in a JSON list or one entry on a line of a JSONL, recognised by its keys:

    - Video-LLaVA, VideoLLaMA 2, Valley, LLaVA:
      `{"id", "video" | "image" | "audio", "conversations": [{"from", "value"}]}`
    - sharegpt: the same with lists `videos`, `images`, `audios`; also `"messages": [{"role", "content"}]`
    - VideoChat: `{"video" | "image", "QA": [{"q", "a"}]}`
    - captions: `{"video" | "image" | "audio", "caption"}`

    `<video>`, `<image>` and `<audio>` in a question say which media belong to it, one for each; an entry without any of
    them has all its media before the first question.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            annotations: the JSON or JSONL file.
            root: folder of the media.
            ratio: share among the datasets of a stage.
            form: caption leaves the questions and the template out: stage 1 of VideoLLaMA 2.
            sound: whether a video brings its sound along, for a system that sees and hears: not at all, where the file
                has some, or always.
            sampling: which frames, as named by `avllm.media.Sampling`; None is the system's setting.
            num_frames: how many; None is the system's setting.
            crop: share of the picture that a random cut keeps, see `Medium`.
        """

        annotations: str
        root: str
        ratio: float = 1.0
        form: Literal["train", "caption"] = "train"
        sound: Literal["none", "auto", "require"] = "none"
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None

        def build(self, context: object) -> "Conversations":
            """Reads the annotations.

            Raises:
                DataError: a key is missing, a value is no text, or places and media differ; file and key are named.
            """
            return Conversations(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(config.annotations)

    def record(self, index: int, seed: int) -> Record:
        """The conversation, each medium before the question that it belongs to."""
        return read_record(*self.entry(index), self.config)


def read_record(entry: Any, where: str, config: Conversations.Config) -> Record:
    """One entry as a record.

    Raises:
        DataError: it has none of the layouts, or places and media differ.
    """
    media = {kind: _media(entry, kind, where, config) for kind in KINDS}
    spoken = _spoken(entry, where)
    places = [PLACES.findall(said) for _, said in spoken]
    if not any(places):
        places[0] = [kind for kind in KINDS for _ in media[kind]]
    for kind in KINDS:
        asked = sum(found.count(kind) for found in places)
        if asked != len(media[kind]):
            raise DataError(f"{where}: {asked} places <{kind}> in the text and {len(media[kind])} media of this kind")
    left = {kind: iter(found) for kind, found in media.items()}
    turns = []
    for (role, said), found in zip(spoken, places, strict=True):
        own = [medium for kind in found for medium in _with_sound(next(left[kind]), config)]
        turns.append(Turn(role=role, text=PLACES.sub(" ", said).strip(), media=tuple(own)))
    if config.form == "caption":
        turns = [Turn(role="user", text="", media=turns[0].media), *turns[1:2]]
    return Record(id=where, turns=tuple(turns), form=config.form)


def _with_sound(medium: Medium, config: Conversations.Config) -> list[Medium]:
    if config.sound != "none" and medium.kind == "video":
        return [medium, Medium(kind="audio", source=medium.source, optional=config.sound == "auto")]
    return [medium]


def _media(entry: Any, kind: Kind, where: str, config: Conversations.Config) -> list[Medium]:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected keys and values, got {type(entry).__name__}")
    keys = [key for key in (kind, f"{kind}s") if entry.get(key)]
    if len(keys) == 2:
        raise DataError(f"{where}: has both {keys[0]} and {keys[1]}; expected one of them")
    names = [name for key in keys for name in (entry[key] if isinstance(entry[key], list) else [entry[key]])]
    options: dict[str, Any] = {}
    if kind == "video":
        options = {"sampling": config.sampling, "num_frames": config.num_frames}
    crop = None if kind == "audio" else config.crop
    media = []
    for index, name in enumerate(names):
        spot = f"{where}.{keys[0]}[{index}]"
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{spot}: expected a path below the media root, got {name!r}")
        media.append(Medium(kind=kind, source=media_path(Path(config.root), name, spot), options=options, crop=crop))
    return media


def _spoken(entry: Any, where: str) -> list[tuple[Literal["user", "assistant"], str]]:
    if "caption" in entry:
        return [("user", ""), ("assistant", text(entry, "caption", where).strip())]
    if "QA" in entry:
        pairs = [(pair, f"{where}.QA[{i}]") for i, pair in enumerate(entries(entry["QA"], f"{where}.QA"))]
        both = (("user", "q"), ("assistant", "a"))
        return [(role, text(pair, key, spot).strip()) for pair, spot in pairs for role, key in both]  # type: ignore[misc]
    if "messages" in entry:
        key, role_key, text_key = "messages", "role", "content"
    else:
        key, role_key, text_key = "conversations", "from", "value"
    spoken = []
    for index, item in enumerate(entries(member(entry, key, where), f"{where}.{key}")):
        spot = f"{where}.{key}[{index}]"
        role = text(item, role_key, spot)
        if role not in ROLES:
            raise DataError(f"{spot}.{role_key}: expected {', '.join(ROLES)}; got {role!r}")
        spoken.append((ROLES[role], text(item, text_key, spot)))
    return spoken
