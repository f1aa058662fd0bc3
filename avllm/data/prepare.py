"""A record to tensors: media opened, text to ids, labels on the assistant's words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from avllm.data.collate import IGNORED, Sample
from avllm.data.crop import random_crop
from avllm.data.features import FeatureStore, Stored
from avllm.data.frames import TooLong, require_frames
from avllm.data.records import Medium, Record
from avllm.errors import ConfigError, DataError, NoAudioStream
from avllm.model.prompts import Medium as PromptMedium
from avllm.model.prompts import Turn


class NothingLearned(DataError):
    """A sample without a token that is learned."""


class Prepare:
    """Makes the sample of a record; passed to `Mixture`.

    Args:
        processor: the system's `AvllmProcessor`; not needed when every record brings its ids and features.
        modality: branch -> "vision" when the branch of sound is fed pictures: all pictures then go to it.
        max_text_tokens: longest text, of a caption or of a whole conversation; what is longer is cut at its end.
            None is without limit.
        store: of features, in place of the media of its branches.
        context: most ids that the decoder holds; None is without limit.
    """

    def __init__(
        self,
        processor: Any,
        *,
        modality: Mapping[str, Any] | None = None,
        max_text_tokens: int | None = None,
        store: FeatureStore | None = None,
        context: int | None = None,
    ) -> None:
        self.processor, self.store, self.context = processor, store, context
        fed_pictures = [name for name, value in (modality or {}).items() if value == "vision"]
        self.picture_branch = fed_pictures[0] if fed_pictures else None
        self.max_text_tokens = max_text_tokens

    def __call__(self, record: Record, seed: int) -> Sample:
        """Opens what is to be opened.

        Raises:
            MediaError: a medium cannot be read.
            TooLong: more ids or frames than the system holds.
            NothingLearned: the text has nothing to learn.
            DataError: the system has no branch for a medium, or no use for one of its options.
        """
        features = {name: _listed(value) for name, value in record.features.items()}
        if record.input_ids is not None and record.labels is not None:
            ids, labels = record.input_ids, record.labels
            sample = Sample(id=record.id, input_ids=ids, labels=labels, uncounted=record.uncounted, features=features)
        else:
            sample = self._from_turns(record, features, seed)
        self.require_room(len(sample.input_ids), record)
        if bool((sample.labels == IGNORED).all()):
            raise NothingLearned(f"{record.id}: no token is learned; {_why_nothing(record)}")
        return sample

    def require_room(self, num_ids: int, record: Record) -> None:
        """Raises TooLong when a sample of so many ids does not fit into the decoder."""
        if self.context is not None and num_ids > self.context:
            raise TooLong(
                f"{record.id}: {num_ids} ids with its media, the decoder holds {self.context}; shorten the text, take "
                f"fewer frames (num_frames), or cut long texts by max_text_tokens"
            )

    def _from_turns(self, record: Record, features: Mapping[str, Sequence[Tensor]], seed: int) -> Sample:
        if self.processor is None:
            raise DataError(
                f"{record.id}: the system has no processor for its text; save it with one beside its weights"
            )
        given = {name: iter(clips) for name, clips in features.items()}
        found: dict[str, list[Tensor]] = {name: [*clips] for name, clips in features.items()}
        media: dict[str, list[Tensor]] = {}

        def see(medium: Medium) -> PromptMedium | None:
            """A medium of the prompt, its values put aside; None for sound that is not there and need not be."""
            branch = self.require_branch(medium, record.id)
            if branch in given:
                return self._stored(medium, branch, _next(given[branch], branch, record.id))
            try:
                if self.store is not None and branch in self.store.branches:
                    stored = self.store.load(branch, medium)
                    found.setdefault(branch, []).append(stored.values)
                    return self._stored(medium, branch, stored)
                loaded = self._open(medium, branch, seed, record.id)
            except NoAudioStream:
                if not medium.optional:
                    raise
                return None
            media.setdefault(branch, []).append(self._cut_out(medium, loaded.values, seed))
            return self.processor.medium(loaded)

        input_ids, labels = self.encode(record, see)
        return Sample(id=record.id, input_ids=input_ids, labels=labels, media=media, features=found)

    def encode(self, record: Record, see: Callable[[Medium], PromptMedium | None]) -> tuple[Tensor, Tensor]:
        """Ids and labels of a record.

        Args:
            record: with turns.
            see: what the prompt needs to know of each medium; None leaves it out, with its place.

        Raises:
            DataError: `max_text_tokens` cuts off a medium, or an answer cannot be left unlearned.
        """
        turns = []
        for asked, answered in zip(record.turns[::2], record.turns[1::2], strict=True):
            seen = [see(medium) for medium in asked.media]
            kept = [number for number, one in enumerate(seen) if one is not None]
            places = None if asked.places is None or not kept else tuple(asked.places[number] for number in kept)
            turns.append(
                Turn(
                    question=asked.text,
                    media=tuple(one for one in seen if one is not None),
                    answer=answered.text,
                    places=places,
                    is_learned=answered.is_learned,
                )
            )
        quirks = self.processor.published_quirks
        if "vicuna_label_drift" in quirks and not all(turn.is_learned for turn in turns):
            raise DataError(f"{record.id}: loss false: the published quirk vicuna_label_drift learns all answers")
        limit = self.max_text_tokens if record.form != "train" else None
        system = record.system if self.has_system(record) else None
        encoded = self.processor.encode(turns, form=record.form, system=system, max_answer_tokens=limit)
        input_ids, labels = torch.tensor(encoded.input_ids), torch.tensor(encoded.labels)
        if record.form == "train" and self.max_text_tokens is not None:
            input_ids, labels = self._cut(input_ids, labels, record)
        return input_ids, labels

    def has_system(self, record: Record) -> bool:
        """Whether the form of a record has a place for a text of the system."""
        return "{system}" in self.processor.prompt.form(record.form, self.processor.published_quirks).first

    def require_branch(self, medium: Medium, where: str) -> str:
        """The branch that a medium goes to.

        Raises:
            DataError: the system has no such branch.
        """
        branch = self.branch_of(medium)
        if branch not in self.processor.branches:
            known = ", ".join(self.processor.branches) or "none"
            raise DataError(
                f"{where}: holds a medium of kind {medium.kind}, the system has no {branch} branch, but: {known}"
            )
        return branch

    def branch_of(self, medium: Medium) -> str:
        """The branch that a medium goes to."""
        return "audio" if medium.kind == "audio" else self.picture_branch or "video"

    def _stored(self, medium: Medium, branch: str, stored: Stored) -> PromptMedium:
        count = self.processor.branches[branch].connector.num_tokens(*stored.values.shape[:2])
        return PromptMedium(kind=medium.kind, branch=branch, num_tokens=count, times_s=stored.times_s)

    def _open(self, medium: Medium, branch: str, seed: int, where: str) -> Any:
        options = {"seed": seed % 2**32, **medium.options} if medium.kind == "video" else dict(medium.options)
        require_frames(self.processor, medium, branch, where)
        try:
            return self.processor.read(medium.opened(), medium.kind, branch=branch, **options)
        except ConfigError as error:  # an option that is wrong, or more frames than a rate may take of this video
            raise DataError(f"{where}: {error}") from error

    def _cut_out(self, medium: Medium, frames: Tensor, seed: int) -> Tensor:
        if medium.crop is None or medium.kind == "audio":
            return frames
        settings = self.processor.branches["video"].media
        return random_crop(frames, medium.crop, seed, mean=settings.mean, std=settings.std)

    def _cut(self, input_ids: Tensor, labels: Tensor, record: Record) -> tuple[Tensor, Tensor]:
        is_text = input_ids < min(self.processor.slot_ids.values())
        kept = is_text.long().cumsum(0) <= self.max_text_tokens
        if bool((~is_text & ~kept).any()):
            raise NothingLearned(f"{record.id}: max_text_tokens = {self.max_text_tokens} cuts off a medium; raise it")
        return input_ids[kept], labels[kept]


def _why_nothing(record: Record) -> str:
    if not any(turn.is_learned for turn in record.turns[1::2]):
        return "no answer is to be learned (loss, loss_weight, weight or train of its turns)"
    return "the answer is empty or cut off by max_text_tokens"


def _listed(value: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [value] if isinstance(value, Tensor) else value


def _next(clips: Iterator[Tensor], branch: str, where: str) -> Stored:
    clip = next(clips, None)
    if clip is None:
        raise DataError(f"{where}: more media than stored features of the {branch} branch; expected one for each")
    return Stored(values=clip)
