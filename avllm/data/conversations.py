"""Your own data: conversations about videos, images and sounds in the JSON that such models are tuned with."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from avllm.data.annotated import Annotated
from avllm.data.annotations import mapping, show
from avllm.data.content_parts import KINDS, MediumPart
from avllm.data.entry_media import Reading, kinds_of, read_media
from avllm.data.keys import present, unused
from avllm.data.layouts import Talk, read_talk
from avllm.data.medium_options import FRAME_KEYS, frame_options
from avllm.data.places import TAG, kind_of, take_tags, words_like_tags
from avllm.data.records import Kind, Medium, Record, Turn
from avllm.errors import DataError

LEADING_IMAGE = re.compile(r"\s*<image>[ \t\r]*\n", re.IGNORECASE)
READING = ("form", "sound", "sampling", "num_frames", "crop", "ignore")
SOUNDS: Mapping[str, Literal["none", "auto", "require"]] = {"off": "none", "auto": "auto", "require": "require"}


class Conversations(Annotated):
    """Conversations about any number of media.

    Layouts, each in a JSON list or one entry on a line of a JSONL, recognised by its keys:

    - Video-LLaVA, VideoLLaMA 2, Valley, LLaVA:
      `{"id", "video" | "image" | "audio", "conversations": [{"from", "value"}]}`
    - sharegpt: the same with lists `videos`, `images`, `audios`; also `"messages": [{"role", "content"}]`, where a
      content is a text or a list of content parts
    - VideoChat and VideoChat2: `{"video" | "image", "QA": [{"i", "q", "a"}]}`
    - one question: `query` and `response` with `history` (ms-swift), `instruction`, `input` and `output` (alpaca),
      `question` and `answer` with `num_frames` and `audio_mode` (`avllm run`)
    - captions: `{"video" | "image" | "audio", "caption"}`

    `<video>`, `<image>` and `<audio>` in a question say where its media stand, one tag for each medium of the kind; of
    kinds that the entry has none of they are words, and in answers always. An entry without any of them has all its
    media before the first question. `system` or a first turn of the system is its text; `start` and `end` are the part
    of a video or sound, in seconds; a list within `videos` holds the frames of one; `"loss": false` in a turn keeps its
    answer from being learned. A key that is not known is an error.
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
            ignore: keys of entries and turns that are left out; every other one is used, known to change nothing, or an
                error.
        """

        annotations: str
        root: str
        ratio: float = 1.0
        form: Literal["train", "caption"] = "train"
        sound: Literal["none", "auto", "require"] = "none"
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "Conversations":
            """Reads the annotations.

            Raises:
                DataError: an entry is wrong; file, line or index, and key are named.
            """
            return Conversations(self).checked()

        @property
        def reading(self) -> Reading:
            """How its entries are read."""
            named = {name: getattr(self, name) for name in READING}
            return Reading(roots=dict.fromkeys(KINDS, self.root), **named)

    def __init__(self, config: Config) -> None:
        super().__init__(config.annotations)
        self.reading = config.reading

    def record(self, index: int, seed: int) -> Record:
        """The conversation, each medium with the question that it belongs to."""
        return read_record(*self.entry(index), self.reading)


class _Question(NamedTuple):
    """A question: its text, and for each of its media the kind, the part that brings it (or None), and its place."""

    text: str
    media: Sequence[tuple[Kind, MediumPart | None]] = ()
    places: tuple[int, ...] | None = None


def read_record(entry: Any, where: str, config: Conversations.Config | Reading) -> Record:
    """One entry as a record.

    Args:
        entry: its plain data.
        where: names it in errors.
        config: how it is read.

    Raises:
        DataError: it has none of the layouts, a key that is not known, or places and media differ.
    """
    reading = config if isinstance(config, Reading) else config.reading
    given = {key: value for key, value in mapping(entry, where).items() if key not in reading.ignore}
    kept = present(given, where)
    talk = read_talk(given, where, reading.ignore)
    kinds, asked = kinds_of(kept), [item.content for item in talk.spoken if item.role == "user"]
    has_parts = any(not isinstance(content, str) and any(map(_is_medium, content)) for content in asked)
    remarks = []
    if _means_videos(asked, kept, kinds):
        asked = [TAG.sub(_as_video, content) if isinstance(content, str) else content for content in asked]
        remarks.append("<image> is read as the place of a video")
    questions = [_question(content, () if has_parts else kinds) for content in asked]
    has_video = "video" in kinds or any(kind == "video" for question in questions for kind, _ in question.media)
    reading, options, used = _of_run(kept, talk, where, reading, has_video=has_video)
    media, keys = read_media(kept, where, reading, _num_places(questions, "video"), options)
    left = tuple(unused(kept, {*talk.used, *keys, *used}, where, has_media=has_parts or bool(kinds)))
    remarks += [f"{word} is read as words" for one in questions for word in words_like_tags(one.text)]
    turns = _turns(talk, _seated(questions, media, where, reading, options), reading)
    if reading.form == "caption":
        if len(turns) > 2:
            raise DataError(f"{where}: {len(turns)} turns; expected one answer, which the caption form learns alone")
        turns = [Turn(role="user", text="", media=turns[0].media), *turns[1:]]
    said = {"system": talk.system, "unused": left, "remarks": tuple(remarks)}
    return Record(id=where, turns=tuple(turns), form=reading.form, **said)


def _means_videos(asked: Sequence[Any], entry: Mapping[str, Any], kinds: Sequence[Kind]) -> bool:
    """Whether `<image>` at the start stands for a video, as LLaVA-Video-178K writes it for data that has no images."""
    texts = [content for content in asked if isinstance(content, str)]
    tags = [kind_of(tag) for text in texts for tag in TAG.finditer(text)]
    count = max(len(entry[key]) if isinstance(entry.get(key), list) else 1 for key in ("video", "videos"))
    is_first = bool(texts) and LEADING_IMAGE.match(texts[0]) is not None
    return kinds == ["video"] and is_first and "video" not in tags and tags.count("image") in (1, count)


def _as_video(tag: re.Match[str]) -> str:
    return "<video>" if kind_of(tag) == "image" else tag.group()


def _question(content: str | Sequence[str | MediumPart], kinds: Collection[Kind]) -> _Question:
    if isinstance(content, str):
        text, named, places = take_tags(content, kinds)
        return _Question(text, [(kind, None) for kind in named], places)
    text, media, places, is_behind_text = "", [], [], False
    for part in content:
        if isinstance(part, MediumPart):
            media.append((part.kind, part))
            places.append(len(text))
        else:
            text += "\n" * is_behind_text + part
        is_behind_text = isinstance(part, str)
    if not media:
        return _question(text, kinds)
    return _Question(text, media, tuple(places)) if any(places) else _Question(text.strip(), media)


def _is_medium(part: str | MediumPart) -> bool:
    return isinstance(part, MediumPart)


def _num_places(questions: Sequence[_Question], kind: Kind) -> int:
    """How many of the entry's own media of a kind the questions ask for."""
    own = [other for question in questions for other, part in question.media if part is None or part.source is None]
    return own.count(kind)


def _of_run(
    entry: Mapping[str, Any], talk: Talk, where: str, reading: Reading, *, has_video: bool
) -> tuple[Reading, dict[str, Any], tuple[str, ...]]:
    """What a question of `avllm run` says of its media: how they are read, options of the videos, and the keys."""
    if "question" not in talk.used:
        return reading, {}, ()
    keys = (*FRAME_KEYS, "audio_mode")
    for key in keys:
        if key in entry and not has_video:
            raise DataError(f"{where}.{key}: the entry has no video that it could be of")
    mode = entry.get("audio_mode")
    if mode is not None:
        if mode not in SOUNDS:
            raise DataError(f"{where}.audio_mode: expected {', '.join(SOUNDS)}; got {show(mode)}")
        reading = replace(reading, sound=SOUNDS[mode])
    return reading, frame_options(entry, where), keys


def _seated(
    questions: Sequence[_Question],
    media: Mapping[Kind, Sequence[Medium]],
    where: str,
    reading: Reading,
    options: Mapping[str, Any],
) -> list[tuple[str, list[Medium], tuple[int, ...] | None]]:
    """Text, media and places of each question; media that no question has a place for stand before the first.

    Raises:
        DataError: numbers of places and media differ.
    """
    if questions and not any(question.media for question in questions):
        in_front = [(kind, None) for kind in KINDS for _ in media[kind]]
        questions = [questions[0]._replace(media=in_front), *questions[1:]]
    for kind in KINDS:
        count = _num_places(questions, kind)
        if count != len(media[kind]):
            raise DataError(
                f"{where}: {count} places <{kind}> in the text and {len(media[kind])} media of this kind; expected one "
                f"place for each, or none at all to have all media in front; in content parts such tags are words"
            )
    left, seated = {kind: iter(media[kind]) for kind in KINDS}, []
    for question in questions:
        own = []
        for kind, part in question.media:
            if part is not None and part.source is not None:
                given = {**options, **part.options} if kind == "video" else part.options
                own.append(reading.medium(kind, part.source, given, where))
            else:
                medium = next(left[kind])
                own.append(medium if part is None else replace(medium, options={**medium.options, **part.options}))
        seated.append((question.text, own, question.places))
    return seated


def _turns(
    talk: Talk, seated: Sequence[tuple[str, list[Medium], tuple[int, ...] | None]], reading: Reading
) -> list[Turn]:
    turns, left = [], iter(seated)
    for item in talk.spoken:
        if item.role == "assistant":
            said = item.content if isinstance(item.content, str) else "\n".join(map(str, item.content))
            turns.append(Turn(role="assistant", text=said.strip(), is_learned=item.is_learned))
            continue
        text, media, places = next(left)
        heard = [_with_sound(medium, reading, item.where) for medium in media]
        if places is not None:
            places = tuple(place for place, both in zip(places, heard, strict=True) for _ in both)
        flat = tuple(medium for both in heard for medium in both)
        turns.append(Turn(role="user", text=text, media=flat, places=places))
    return turns


def _with_sound(medium: Medium, reading: Reading, where: str) -> list[Medium]:
    """A video with its sound, which stands at its place and is of the same part."""
    if reading.sound == "none" or medium.kind != "video":
        return [medium]
    if isinstance(medium.source, list):  # frames
        if reading.sound == "require":
            raise DataError(f"{where}: a video of frames has no sound, and sound is required; give it as an audio")
        return [medium]
    part = {key: value for key, value in medium.options.items() if key in ("start_s", "end_s")}
    return [medium, Medium(kind="audio", source=medium.source, options=part, optional=reading.sound == "auto")]
