"""How systems write a conversation: a table of prompt forms, and the parts that a prompt is made of.

A form is data: templates with named fields. Only templates are searched for fields; the user's text is put in as it is,
so whatever stands in it (`<ImageHere>`, `</s>`, `{video}`) stays ordinary text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Literal

Kind = Literal["video", "image", "audio"]


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A medium as a prompt sees it.

    Args:
        kind: which wording announces it.
        branch: whose slots it fills; "video" for images too.
        num_tokens: m, slots it takes.
        times_s: seconds of its frames, for wordings that tell them.
    """

    kind: Kind
    branch: str
    num_tokens: int
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question with its media, and the answer if it is known."""

    question: str = ""
    media: tuple[Medium, ...] = ()
    answer: str | None = None


@dataclass(frozen=True)
class Text:
    """Ordinary text; texts that follow each other are tokenised as one."""

    text: str
    is_answer: bool = False


@dataclass(frozen=True)
class Special:
    """A special token of the tokenizer."""

    name: Literal["bos", "eos"]
    is_answer: bool = False


@dataclass(frozen=True)
class Slot:
    """The place of a medium."""

    branch: str
    num_tokens: int


@dataclass(frozen=True)
class Cut:
    """The texts on both sides are tokenised apart."""


Part = Text | Special | Slot | Cut


@dataclass(frozen=True, kw_only=True)
class Form:
    """Templates of one kind of prompt.

    Fields: `{bos}`, `{eos}`, `{cut}` (see `Cut`), `{system}`, `{user}` (media and question), `{answer}`.

    Args:
        first: first question, up to where the answer begins.
        later: the same for every later question.
        answer: the answer and what ends it. In training all of it is learned, and nothing else.
        media: kinds of the turn's media, sorted and joined by + -> `{user}`, with the fields `{video}`, `{image}`,
            `{audio}`, `{num_frames}`, `{times}` and `{text}` (the question). What stands in no row is announced medium
            by medium.
        system: system text when none is given.
        system_with_audio: the same for a conversation in which there is sound; None if it is the same.
    """

    first: str
    later: str = ""
    answer: str
    media: Mapping[str, str] = field(default_factory=dict)
    system: str = ""
    system_with_audio: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A row of the table: the forms of one system and how its answers are read.

    Args:
        chat: questions and answers.
        train: instruction data.
        caption: a medium and its caption without a question (stage 1).
        train_caption: a medium, a request to describe it, and its caption (stage 2).
        stop: text that ends an answer, besides the end-of-sequence token.
        answer_after: a header that the model may repeat; the answer is what follows the last one.
    """

    chat: Form
    train: Form
    caption: Form
    train_caption: Form
    stop: tuple[str, ...] = ()
    answer_after: str = ""

    def form(self, name: Literal["chat", "train", "caption", "train_caption"]) -> Form:
        """The form of that name."""
        return {"chat": self.chat, "train": self.train, "caption": self.caption, "train_caption": self.train_caption}[
            name
        ]

    def answer_text(self, decoded: str) -> str:
        """The answer within what the model wrote: before the first stop text, after the last header."""
        for stop in self.stop:
            decoded = decoded.split(stop)[0]
        return (decoded.split(self.answer_after)[-1] if self.answer_after else decoded).strip()


def conversation(form: Form, turns: Sequence[Turn], system: str | None = None) -> list[Part]:
    """Parts of a whole conversation. If the last turn has no answer, it ends where the answer begins.

    Args:
        form: the templates.
        turns: in order; only the last may lack an answer.
        system: in place of the form's system text.
    """
    if system is None:
        has_audio = any(medium.branch == "audio" for turn in turns for medium in turn.media)
        system = form.system_with_audio if has_audio and form.system_with_audio is not None else form.system
    parts: list[Part] = []
    for index, turn in enumerate(turns):
        user = user_parts(form, turn)
        parts += fill(form.later if index else form.first, {"system": [Text(system)], "user": user})
        if turn.answer is not None:
            answer = fill(form.answer, {"answer": [Text(turn.answer)]})
            parts += [replace(part, is_answer=True) if isinstance(part, Text | Special) else part for part in answer]
        elif index + 1 < len(turns):
            raise ValueError(f"turn {index + 1} of {len(turns)} has no answer; only the last may lack one")
    return parts


def user_parts(form: Form, turn: Turn) -> list[Part]:
    """The media of a turn in their wording, and its question."""
    template = form.media.get("+".join(sorted(medium.kind for medium in turn.media)))
    if template is not None and turn.media:
        return fill(template, {**_media_fields(turn.media), "text": [Text(turn.question)]})
    parts: list[Part] = [Text(turn.question)]
    for medium in reversed(turn.media):
        alone = form.media.get(medium.kind, f"{{{medium.kind}}} {{text}}")
        parts = fill(alone, {**_media_fields([medium]), "text": parts})
    return parts


def fill(template: str, fields: Mapping[str, Sequence[Part]]) -> list[Part]:
    """Parts of a template. `{bos}`, `{eos}` and `{cut}` are always known."""
    known = {"bos": [Special("bos")], "eos": [Special("eos")], "cut": [Cut()], **fields}
    parts: list[Part] = []
    for text, name, _, _ in Formatter().parse(template):
        if text:
            parts.append(Text(text))
        if name is not None:
            parts += known[name]
    return parts


def show(parts: Iterable[Part], *, slots: Mapping[str, str] | None = None, bos: str = "<s>", eos: str = "</s>") -> str:
    """The prompt as one text for people and logs, without the token that opens it. Never tokenised.

    Args:
        parts: the prompt.
        slots: branch -> how one of its slots is written, `<ImageHere>` by default.
        bos: how the token that opens a text is written.
        eos: how the token that ends one is written.
    """
    text = ""
    for part in parts:
        match part:
            case Text():
                text += part.text
            case Special(name="bos"):
                text += bos if text else ""
            case Special():
                text += eos
            case Slot():
                text += (slots or {}).get(part.branch, "<ImageHere>") * part.num_tokens
    return text


def drop_leading(ids: Sequence[int], tokens: Sequence[int | None]) -> list[int]:
    """The ids without these tokens at the start, each at most once and in this order."""
    kept = list(ids)
    for token in tokens:
        if kept and token is not None and kept[0] == token:
            kept = kept[1:]
    return kept


def time_text(times_s: Sequence[float]) -> str:
    """Times as the published systems tell them: seconds with one decimal."""
    return ", ".join(str(round(float(time), 1)) for time in times_s)


def _media_fields(media: Sequence[Medium]) -> dict[str, list[Part]]:
    fields: dict[str, list[Part]] = {}
    for medium in media:
        fields[medium.kind] = [Slot(medium.branch, medium.num_tokens)]
        if medium.times_s and medium.kind != "audio":
            fields["num_frames"] = [Text(str(len(medium.times_s)))]
            fields["times"] = [Text(time_text(medium.times_s))]
    for name in ("num_frames", "times"):
        fields.setdefault(name, [Text("")])
    return fields


# Video-LLaMA (arXiv:2306.02858). The runs of spaces come from a line continued inside a string of the published code;
# the models were never trained on these sentences, but their users' results come from them.
_SYSTEM = (
    "You are able to understand the visual content that the user provides. "
    "Follow the instructions carefully and explain your answers in detail."
)
_HEAR = "Close your eyes, open your ears and you imagine only based on the sound that: {audio}."
_SEE = "Close your ears, open your eyes and you see that "
_ANSWER = "Now answer my question based on what you have just "
_TIMES = "The video contains {num_frames} frames sampled at {times} seconds."
_CHAT_MEDIA = {
    "video": f"<Video>{{video}}</Video> {_TIMES}  {{text}}",
    "image": "<Image>{image}</Image>  {text}",
    "audio": f"{_HEAR}{' ' * 17}{_ANSWER}heard. {{text}}",
    "audio+video": f"{_HEAR}{' ' * 17}{_SEE}<Video>{{video}}</Video>.{' ' * 18}{_ANSWER}seen and heard. {{text}}",
    "audio+image": f"{_HEAR}{' ' * 17}{_SEE}<Image>{{image}}</Image>.{' ' * 18}{_ANSWER}seen and heard. {{text}}",
}
_TRAIN_MEDIA = {
    **_CHAT_MEDIA,
    "video": f"<Video>{{video}}</Video> {_TIMES} {{text}}",
    "image": "<Image>{image}</Image>\n{text}",
}
_CAPTION_MEDIA = {
    "video": "<Video>{video}</Video> {text}",
    "image": "<Image>{image}</Image> {text}",
    "audio": "{audio} {text}",
}
_STAGE1 = Form(
    first="{bos}{user}{cut}",
    answer="{answer}\n",
    media={"video": "{video}", "image": "{image}", "audio": "{audio}", "audio+video": "{audio}{video}"},
)
_LLAMA2_SYSTEM = "{bos}[INST] <<SYS>>\n{system}\n<</SYS>>\n\n"

CAPTION_REQUESTS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)

PROMPTS: dict[str, Prompt] = {
    "vicuna": Prompt(
        chat=Form(
            first="{bos}{system}###Human: {user}###Assistant:",
            later="###Human: {user}###Assistant:",
            answer=" {answer}",
            media=_CHAT_MEDIA,
            system=_SYSTEM,
            system_with_audio="",
        ),
        train=Form(
            first="{bos}{system}\n\n###Human: {user}\n###Assistant:",
            later="Human: {user}\n###Assistant:",
            answer=" {answer}\n###",
            media=_TRAIN_MEDIA,
        ),
        caption=_STAGE1,
        train_caption=Form(
            first="{bos}###Human: {user} ###Assistant: {cut}", answer="{answer}###", media=_CAPTION_MEDIA
        ),
        stop=("###",),
        answer_after="Assistant:",
    ),
    "llama2": Prompt(
        chat=Form(
            first=_LLAMA2_SYSTEM + "{user} [/INST]",
            later="{bos}[INST] {user} [/INST]",
            answer=" {answer} {eos}",
            media=_CHAT_MEDIA,
            system=_SYSTEM,
            system_with_audio="",
        ),
        train=Form(
            first=_LLAMA2_SYSTEM + "{user} [/INST]",
            later="{bos}[INST] {user} [/INST]",
            answer=" {answer} {eos}",
            media=_TRAIN_MEDIA,
            system=" ",
        ),
        caption=_STAGE1,
        train_caption=Form(
            first=_LLAMA2_SYSTEM + "{user} [/INST] {cut}", answer="{answer}{eos}", media=_CAPTION_MEDIA, system=" "
        ),
        stop=("</s>",),
        answer_after="ASSISTANT:",
    ),
}

# nano: as short as can be, the same in chat and training.
_NANO_MEDIA = {
    "video": "{video} {text}",
    "image": "{image} {text}",
    "audio": "{audio} {text}",
    "audio+video": "{video}{audio} {text}",
    "audio+image": "{image}{audio} {text}",
}
_NANO = Form(
    first="{bos}human: {user}\nassistant:",
    later="\nhuman: {user}\nassistant:",
    answer=" {answer}{eos}",
    media=_NANO_MEDIA,
)
PROMPTS["nano"] = Prompt(
    chat=_NANO,
    train=_NANO,
    caption=Form(first="{bos}{user}", answer=" {answer}{eos}", media=_STAGE1.media),
    train_caption=_NANO,
)
