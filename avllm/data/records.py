"""The one form of a training sample: turns of text and media, or the ids made of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from avllm.errors import DataError, MediaError

# Every reader turns its layout into these; nothing after it knows where a sample came from.
Kind = Literal["video", "image", "audio"]


@dataclass(frozen=True)
class FilePart:
    """A medium inside another file, such as a member of a tar; read when it is opened.

    Args:
        path: the file.
        start: first byte.
        size: how many bytes.
    """

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Raises MediaError when the file is gone or shorter than it was."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be read ({error.strerror})") from error
        if len(data) < self.size:
            raise MediaError(f"{self.path}: cut short; expected {self.size} bytes at {self.start}, got {len(data)}")
        return data


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A medium of a turn, by where it is.

    Args:
        kind: how it is opened.
        source: a path, a part of a file, or anything else that `avllm.media` opens.
        options: of `AvllmProcessor.read`, in place of the system's settings: `num_frames`, `sampling`, `start_s`...
        crop: smallest and largest share of the picture's area that a random cut keeps; None keeps all of it.
        optional: sound that is left out where the file holds none.
    """

    kind: Kind
    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    crop: tuple[float, float] | None = None
    optional: bool = False

    def opened(self) -> Any:
        """What `avllm.media` opens: the source, or the bytes of a part of a file."""
        return self.source.read() if isinstance(self.source, FilePart) else self.source


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side says.

    Args:
        role: which side.
        text: without its media.
        media: in the order in which they were given.
        places: for each medium, the character of `text` in front of which it stands, ascending; None leaves the place
            to the system's form (mostly in front of the text).
        is_learned: whether an answer is learned; others are read like questions.
    """

    role: Literal["user", "assistant"]
    text: str
    media: tuple[Medium, ...] = ()
    places: tuple[int, ...] | None = None
    is_learned: bool = True


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample.

    Args:
        id: names the sample in logs and errors: file and line or index.
        turns: user and assistant in turn; the user's turn may be media alone.
        form: which of the system's templates: a medium and its caption, the same after a request, a conversation.
        system: text of the system, in place of the form's; None leaves that.
        remarks: what of the entry was left out, or is read in a way that its writer may not mean.
        features: branch -> stored output of its frozen prefix [t q d] of the sample's media, in place of opening them;
            a list of such tensors when the branch has several media.
        input_ids: prompt and answer as ids, if they are known already.
        labels: the same with -100 where nothing is learned.
        uncounted: beside each label an id that is neither right nor wrong there, -100 for none.
    """

    id: str
    turns: tuple[Turn, ...] = ()
    form: Literal["caption", "train_caption", "train"] = "train"
    system: str | None = None
    remarks: tuple[str, ...] = ()
    features: Mapping[str, Tensor | list[Tensor]] = field(default_factory=dict)
    input_ids: Tensor | None = None
    labels: Tensor | None = None
    uncounted: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.input_ids is None) != (self.labels is None):
            raise DataError(f"{self.id}: expected input_ids and labels together, got one of them")
        if self.input_ids is None:
            self._check_turns()

    def _check_turns(self) -> None:
        if not self.turns:
            raise DataError(f"{self.id}: no turns; expected a question and an answer, or a medium and its caption")
        for index, turn in enumerate(self.turns):
            expected = ("user", "assistant")[index % 2]
            if turn.role != expected:
                raise DataError(f"{self.id}: turn {index + 1}: expected the {expected}'s, got the {turn.role}'s")
            if turn.media and turn.role == "assistant":
                raise DataError(f"{self.id}: turn {index + 1}: the assistant's answer holds media; expected text")
            if not turn.text.strip() and not turn.media:
                raise DataError(f"{self.id}: turn {index + 1}: the {turn.role} says nothing")
        if self.turns[-1].role != "assistant":
            raise DataError(f"{self.id}: the last turn is the user's; expected the answer that is to be learned")


class Source(Protocol):
    """A dataset: samples by number. `record` is a pure function, so that a run can go on from any step."""

    def __len__(self) -> int: ...

    def record(self, index: int, seed: int) -> Record:
        """Reads a sample.

        Args:
            index: which one, from 0.
            seed: of whatever is drawn at random (frames, wording); another one each time the sample comes up.

        Raises:
            MediaError: a medium cannot be read; the sample is left out and counted.
            DataError: the annotation is wrong; the run stops.
        """
        ...


class DatasetConfig(Protocol):
    """Options of a kind of dataset, a frozen dataclass: one row of the table that a stage's `data` is read by."""

    ratio: float

    def build(self, context: Any) -> Source:
        """Opens it; `context` is `avllm.data.Context`."""
        ...


def media_path(root: Path, name: str, where: str) -> Path:
    """Path of a medium below its folder. The name must stay below it; links in the folder may point anywhere.

    Raises:
        DataError: the name leads out of the folder.
    """
    name = os.path.normpath(name)
    is_below = name.split(os.sep)[0] != ".."
    if os.path.isabs(name):
        path = Path(name)
        is_below = path.is_relative_to(os.path.abspath(root)) or path.resolve().is_relative_to(root.resolve())
    if not is_below:
        raise DataError(f"{where}: {name!r} leads out of {root}; expected a name below it")
    return root / name
