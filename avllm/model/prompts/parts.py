"""The parts that a prompt is made of, and the forms that say how; `writing` puts them together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from avllm.errors import DataError

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
    """A question with its media, and the answer if it is known.

    Args:
        question: the text, without its media.
        media: in the order in which they were given.
        answer: None for the question that is asked now.
        places: for each medium, the character of `question` in front of which it stands, ascending; None leaves the
            place to the system's form (mostly in front of the question).
        is_learned: whether the answer is learned.
    """

    question: str = ""
    media: tuple[Medium, ...] = ()
    answer: str | None = None
    places: tuple[int, ...] | None = None
    is_learned: bool = True

    def __post_init__(self) -> None:
        """Raises DataError when the places are not one for each medium, within the question, one after the other."""
        if self.places is None:
            return
        inside = (0, *self.places, len(self.question))
        if len(self.places) != len(self.media) or inside != tuple(sorted(inside)):
            raise DataError(
                f"places of media: expected {len(self.media)} characters of the question, ascending and at most "
                f"{len(self.question)}, got {self.places}"
            )


@dataclass(frozen=True)
class Text:
    """Ordinary text; texts that follow each other are tokenised as one."""

    text: str
    is_answer: bool = False


@dataclass(frozen=True)
class Special:
    """A special token of the tokenizer: `bos`, `eos`, or any other by its text, for example `<|im_start|>`."""

    name: str
    is_answer: bool = False


@dataclass(frozen=True)
class Slot:
    """The place of a medium."""

    branch: str
    num_tokens: int


@dataclass(frozen=True)
class Cut:
    """The texts on both sides are tokenised apart; what follows is the start of a text for the tokenizer."""


Part = Text | Special | Slot | Cut


@dataclass(frozen=True, kw_only=True)
class Form:
    """Templates of one kind of prompt.

    Fields: `{bos}`, `{eos}`, any other special token by its text (`{<|im_start|>}`), `{cut}` (see `Cut`), `{system}`,
    `{user}` (media and question), `{answer}`. What stands between `{learn}` and `{ignore}` is learned in training,
    though it is no answer. Braces are written twice.

    Args:
        first: first question, up to where the answer begins.
        later: the same for every later question.
        answer: the answer and what ends it. In training all of it is learned.
        media: kinds of the turn's media, sorted and joined by + -> `{user}`, with the fields `{video}`, `{image}`,
            `{audio}`, `{num_frames}`, `{times}` and `{text}` (the question). "*" stands for all other media, with the
            field `{media}`: their slots in order. Without it they are announced medium by medium. "" stands for a first
            question without media.
        placed: kinds of the media that stand at one place within the question, sorted and joined by + -> their wording
            there, with the fields of `media` but `{text}`. White space at its end goes where the question has its own
            or ends. Kinds without a wording stand bare. None: media move in front of the question, as in `media`, and
            the question loses the white space around it.
        joint: between each text and medium of such a question, which then lose the white space around them; where media
            move, in place of one that stood between two words.
        system: system text when none is given.
        system_with_audio: the same for a conversation in which there is sound; None if it is the same.
        without_system: in place of `first` when the system text is empty; None if `first` serves then too.
        strips: questions and answers lose the white space around them.
    """

    first: str
    later: str = ""
    answer: str
    media: Mapping[str, str] = field(default_factory=dict)
    placed: Mapping[str, str] | None = field(default_factory=dict)
    joint: str = ""
    system: str = ""
    system_with_audio: str | None = None
    without_system: str | None = None
    strips: bool = False


FormName = Literal["chat", "train", "caption", "train_caption"]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A row of the table: the forms of one system and how its answers are read.

    Args:
        chat: questions and answers.
        train: instruction data.
        caption: a medium and its caption without a question (stage 1).
        train_caption: a medium, a request to describe it, and its caption.
        stop: text that ends an answer, besides the end-of-sequence token.
        answer_after: a header that the model may repeat; the answer is what follows the last one.
        uses_chat_template: chat and train follow the chat template of the tokenizer, if it has one.
        quirk_forms: name of a published quirk -> the form that takes the place of train.
    """

    chat: Form
    train: Form
    caption: Form
    train_caption: Form
    stop: tuple[str, ...] = ()
    answer_after: str = ""
    uses_chat_template: bool = False
    quirk_forms: Mapping[str, Form] = field(default_factory=dict)

    def form(self, name: FormName, quirks: Iterable[str] = ()) -> Form:
        """The form of that name, or the one that a published quirk puts in its place."""
        if name == "train":
            return next((self.quirk_forms[quirk] for quirk in quirks if quirk in self.quirk_forms), self.train)
        return {"chat": self.chat, "caption": self.caption, "train_caption": self.train_caption}[name]

    def answer_text(self, decoded: str) -> str:
        """The answer within what the model wrote: before the first stop text, after the last header."""
        for stop in self.stop:
            decoded = decoded.split(stop)[0]
        return (decoded.split(self.answer_after)[-1] if self.answer_after else decoded).strip()
