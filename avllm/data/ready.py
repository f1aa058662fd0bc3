"""Looks through the data of a training before its first step, from its texts: what cannot fit, what is missing."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from tqdm import tqdm

from avllm.data.feature_shards import files_of
from avllm.data.frames import num_frames, require_frames
from avllm.data.prepare import Prepare, require_learned
from avllm.data.records import Medium, Record, Source
from avllm.errors import AvllmError, ConfigError, DataError, attempted, own_message
from avllm.model.prompts import Medium as PromptMedium
from avllm.model.prompts import Slot, Text, Turn, conversation

log = logging.getLogger(__name__)
MAX_LISTED = 5
# Files that are looked for in each data set, spread evenly over it: a look takes microseconds on a disk of this
# machine, but milliseconds on one of another.
MAX_FILES = 10_000
MAX_TEXTS = 1_000_000  # that are read in each data set, likewise: some ten seconds to a minute of one core
LONG_S, SHORT_S = 5999.9, 0.0  # times in seconds that take most and fewest letters


class Fit:
    """Tells from the text alone whether samples fit into their system.

    Args:
        prepare: what will make the samples.
    """

    def __init__(self, prepare: Prepare) -> None:
        self.prepare = prepare
        self._media: dict[Any, PromptMedium] = {}
        self._around: dict[Any, int] = {}

    def require(self, record: Record) -> bool:
        """Whether it fits for sure; False when only its media can tell.

        Raises:
            TooLong: it has more ids or frames than the system holds, whatever its media are.
            DataError: it has nothing to learn, or a medium that the system has no branch for.
        """
        if record.input_ids is not None:
            self.prepare.require_room(len(record.input_ids), record)
            return True
        is_sure = True
        for turn in record.turns:
            for medium in turn.media:
                is_sure = self._require_frames(medium, record) and is_sure
        limits = (self.prepare.context, self.prepare.max_text_tokens if record.form == "train" else None)
        limit = min((limit for limit in limits if limit is not None), default=None)
        is_learned = any(turn.is_learned for turn in record.turns[1::2])
        if is_learned and (limit is None or self._most_ids(record) <= limit):
            return True
        ids, labels = self.prepare.encode(record, lambda medium: self._seen(medium, at_most=True))
        require_learned(labels, record)
        if self.prepare.context is None or len(ids) <= self.prepare.context:
            return True
        if not is_sure:
            ids, _ = self.prepare.encode(record, lambda medium: self._seen(medium, at_most=False))
        if is_sure or len(ids) > self.prepare.context:
            self.prepare.require_room(len(ids), record)
        return False

    def _require_frames(self, medium: Medium, record: Record) -> bool:
        """Whether the number of slots and words of a medium is known before it is opened."""
        branch = self.prepare.require_branch(medium, record.id)
        count = require_frames(self.prepare.processor, medium, branch, record.id)
        return count.is_sure and medium.kind != "video" and not medium.optional  # prompts may tell the times of frames

    def _seen(self, medium: Medium, *, at_most: bool) -> PromptMedium | None:
        """A medium as the prompt would see it, with most or fewest slots and words."""
        if medium.optional and not at_most:
            return None
        branch, count = self.prepare.branch_of(medium), num_frames(self.prepare.processor, medium)
        frames = count.most if count.most is not None and (at_most or count.is_sure) else 1
        key = (medium.kind, branch, frames, at_most)
        if key not in self._media:
            fed = self.prepare.processor.branches["audio" if medium.kind == "audio" else "video"]
            settings = self.prepare.processor.branches[branch]
            try:
                num_tokens = settings.num_tokens((frames, *fed.media.frame_shape))
            except ValueError:  # too few frames for the connector, which the medium will say
                num_tokens = 0
            times = () if medium.kind == "audio" else (LONG_S if at_most else SHORT_S,) * frames
            self._media[key] = PromptMedium(kind=medium.kind, branch=branch, num_tokens=num_tokens, times_s=times)
        return self._media[key]

    def _most_ids(self, record: Record) -> int:
        """An upper bound that needs no tokenizer: a byte is at most one id."""
        media = tuple(tuple(self._seen(medium, at_most=True) for medium in turn.media) for turn in record.turns[::2])
        key = (record.form, record.system, media)
        if key not in self._around:
            processor = self.prepare.processor
            form = processor.prompt.form(record.form, processor.published_quirks)
            turns = [Turn(answer="", media=tuple(filter(None, seen))) for seen in media]
            parts = conversation(form, turns, record.system if self.prepare.has_system(record) else None)
            sizes = [_most_ids_of(part) for part in parts]
            self._around[key] = sum(sizes) + 4 * len(record.turns)
        return self._around[key] + sum(len(turn.text.encode()) for turn in record.turns)


def _most_ids_of(part: Any) -> int:
    if isinstance(part, Slot):
        return part.num_tokens
    return 1 + len(part.text.encode()) if isinstance(part, Text) else 1


def require_ready(sources: Mapping[str, Source], prepare: Prepare, *, max_unreadable: float) -> None:
    """Looks through data sets before the first step.

    Entries are read once, of more than a million of a data set a million spread evenly; only texts that may be too long
    are tokenised, and media are opened only where their length decides. Files are looked for in at most 10,000 samples
    of each data set. Samples whose ids are made by their data set are left to the run.

    Args:
        sources: name in the stage -> data set.
        prepare: what will make the samples.
        max_unreadable: highest share of samples whose media may be missing.

    Raises:
        DataError: samples do not fit into the system, or too many media are missing; how many, and the first of them.
    """
    if prepare.processor is None:  # stored features and ids alone
        return
    for name, source in sources.items():
        _Look(prepare, max_unreadable).through(name, source)


class _Look:
    """Through one data set."""

    def __init__(self, prepare: Prepare, max_unreadable: float) -> None:
        self.prepare, self.fit, self.max_unreadable = prepare, Fit(prepare), max_unreadable
        self.faults: list[str] = []
        self.missing: list[str] = []
        self.remarks: Counter[str] = Counter()
        self.num_searched = 0

    def through(self, name: str, source: Source) -> None:
        """Raises DataError, see `require_ready`."""
        rows = range(0, len(source), -(-len(source) // MAX_TEXTS) or 1)
        every = max(1, len(rows) // MAX_FILES)
        bar = tqdm(rows, desc=f"looking through {name}", unit="sample", disable=None, leave=False)
        for number, index in enumerate(bar):
            record = attempted(partial(source.record, index, 0))
            if isinstance(record, DataError | ConfigError):
                raise record
            if isinstance(record, AvllmError):
                self.num_searched += 1
                self.missing.append(own_message(record))
                continue
            if record.input_ids is not None:
                return
            self._look(record, is_searched=number % every == 0)
        self._tell(name, len(rows))

    def _look(self, record: Record, *, is_searched: bool) -> None:
        self.remarks.update(record.remarks)
        if record.system and not self.prepare.has_system(record):
            self.remarks["a text of the system is left out, the prompt form has no place for one"] += 1
        if is_searched:
            self.num_searched += 1
            lost = next((file for turn in record.turns for file in map(self._lost, turn.media) if file), None)
            if lost is not None:
                self.missing.append(f"{record.id}: {lost}: no such file")
                return
        found = attempted(lambda: self.fit.require(record) or self.prepare(record, 0))
        if isinstance(found, ConfigError):
            raise found
        if isinstance(found, DataError):  # any other is counted when it comes up
            self.faults.append(own_message(found))

    def _lost(self, medium: Medium) -> str | None:
        """The file of a medium, if it is not there and is needed."""
        store = self.prepare.store
        if store is not None and self.prepare.branch_of(medium) in store.branches:
            return None
        files = [os.fspath(file) for file in files_of(medium.source)]
        return next((file for file in files if file[:5] not in ("data:", "file:") and not os.path.exists(file)), None)

    def _tell(self, name: str, num_samples: int) -> None:
        for remark, count in sorted(self.remarks.items()):
            log.warning("%s: %s, in %d of %d samples", name, remark, count, num_samples)
        if self.faults:
            raise DataError(
                f"{name}: {len(self.faults)} of {num_samples} samples cannot be trained on; the first: "
                f"{'; '.join(self.faults[:MAX_LISTED])}"
            )
        if len(self.missing) > self.max_unreadable * self.num_searched:
            raise DataError(
                f"{name}: media of {len(self.missing)} of {self.num_searched} samples are not there, max_unreadable "
                f"allows {self.max_unreadable:.1%}; the first: {'; '.join(self.missing[:MAX_LISTED])}"
            )
