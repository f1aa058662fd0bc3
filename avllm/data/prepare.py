"""A record to tensors: media opened, text to ids, labels on the assistant's words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from avllm.data.collate import IGNORED, Sample
from avllm.data.crop import random_crop
from avllm.data.features import FeatureStore, Stored
from avllm.data.records import Medium, Record
from avllm.errors import DataError, NoAudioStream
from avllm.model.prompts import Medium as PromptMedium
from avllm.model.prompts import Turn


class Prepare:
    """Makes the sample of a record; passed to `Mixture`.

    Args:
        processor: the system's `AvllmProcessor`; not needed when every record brings its ids and features.
        modality: branch -> "vision" when the branch of sound is fed pictures: all pictures then go to it.
        max_text_tokens: longest text, of a caption or of a whole conversation; what is longer is cut at its end.
            None is without limit.
        store: of features, in place of the media of its branches.
    """

    def __init__(
        self,
        processor: Any,
        *,
        modality: Mapping[str, Any] | None = None,
        max_text_tokens: int | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.processor, self.store = processor, store
        fed_pictures = [name for name, value in (modality or {}).items() if value == "vision"]
        self.picture_branch = fed_pictures[0] if fed_pictures else None
        self.max_text_tokens = max_text_tokens

    def __call__(self, record: Record, seed: int) -> Sample:
        """Raises MediaError when a medium cannot be read, DataError when the text has nothing to learn."""
        features = {name: _listed(value) for name, value in record.features.items()}
        if record.input_ids is not None and record.labels is not None:
            ids, labels = record.input_ids, record.labels
            sample = Sample(id=record.id, input_ids=ids, labels=labels, uncounted=record.uncounted, features=features)
        else:
            sample = self._from_turns(record, features, seed)
        if bool((sample.labels == IGNORED).all()):
            raise DataError(f"{record.id}: no token is learned; the answer is empty or cut off by max_text_tokens")
        return sample

    def _from_turns(self, record: Record, features: Mapping[str, Sequence[Tensor]], seed: int) -> Sample:
        if self.processor is None:
            raise DataError(
                f"{record.id}: the system has no processor for its text; save it with one beside its weights"
            )
        media: dict[str, list[Tensor]] = {}
        given = {name: iter(clips) for name, clips in features.items()}
        found: dict[str, list[Tensor]] = {name: [*clips] for name, clips in features.items()}
        turns = []
        for asked, answered in zip(record.turns[::2], record.turns[1::2], strict=True):
            seen = []
            for medium in asked.media:
                branch = self.branch_of(medium)
                if branch in given:
                    seen.append(self._stored(medium, branch, _next(given[branch], branch, record.id)))
                    continue
                try:
                    if self.store is not None and branch in self.store.branches:
                        stored = self.store.load(branch, medium)
                        found.setdefault(branch, []).append(stored.values)
                        seen.append(self._stored(medium, branch, stored))
                        continue
                    loaded = self._open(medium, branch, seed)
                except NoAudioStream:
                    if not medium.optional:
                        raise
                    continue
                media.setdefault(branch, []).append(self._cut_out(medium, loaded.values, seed))
                seen.append(self.processor.medium(loaded))
            turns.append(Turn(question=asked.text, media=tuple(seen), answer=answered.text))
        limit = self.max_text_tokens if record.form != "train" else None
        encoded = self.processor.encode(turns, form=record.form, max_answer_tokens=limit)
        input_ids, labels = torch.tensor(encoded.input_ids), torch.tensor(encoded.labels)
        if record.form == "train" and self.max_text_tokens is not None:
            input_ids, labels = self._cut(input_ids, labels, record)
        return Sample(id=record.id, input_ids=input_ids, labels=labels, media=media, features=found)

    def branch_of(self, medium: Medium) -> str:
        """The branch that a medium goes to."""
        return "audio" if medium.kind == "audio" else self.picture_branch or "video"

    def _stored(self, medium: Medium, branch: str, stored: Stored) -> PromptMedium:
        count = self.processor.branches[branch].connector.num_tokens(*stored.values.shape[:2])
        return PromptMedium(kind=medium.kind, branch=branch, num_tokens=count, times_s=stored.times_s)

    def _open(self, medium: Medium, branch: str, seed: int) -> Any:
        options = {"seed": seed % 2**32, **medium.options} if medium.kind == "video" else dict(medium.options)
        return self.processor.read(medium.opened(), medium.kind, branch=branch, **options)

    def _cut_out(self, medium: Medium, frames: Tensor, seed: int) -> Tensor:
        if medium.crop is None or medium.kind == "audio":
            return frames
        settings = self.processor.branches["video"].media
        return random_crop(frames, medium.crop, seed, mean=settings.mean, std=settings.std)

    def _cut(self, input_ids: Tensor, labels: Tensor, record: Record) -> tuple[Tensor, Tensor]:
        is_text = input_ids < min(self.processor.slot_ids.values())
        kept = is_text.long().cumsum(0) <= self.max_text_tokens
        if bool((~is_text & ~kept).any()):
            raise DataError(f"{record.id}: max_text_tokens = {self.max_text_tokens} cuts off a medium; raise it")
        return input_ids[kept], labels[kept]


def _listed(value: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [value] if isinstance(value, Tensor) else value


def _next(clips: Iterator[Tensor], branch: str, where: str) -> Stored:
    clip = next(clips, None)
    if clip is None:
        raise DataError(f"{where}: more media than stored features of the {branch} branch; expected one for each")
    return Stored(values=clip)
