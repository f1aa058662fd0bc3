"""A record to tensors: media opened, text to ids, labels on the assistant's words."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from avllm.data.collate import Sample
from avllm.data.records import Record
from avllm.errors import DataError


class Prepare:
    """Makes the sample of a record; passed to `Mixture`.

    Args:
        processor: the system's `AvllmProcessor`; not needed when every record brings its ids and features.
        modality: branch -> "vision" when the branch of sound is fed pictures.
        max_text_tokens: longest text; what is longer is cut at its end. None is without limit.
    """

    def __init__(
        self, processor: Any, *, modality: Mapping[str, Any] | None = None, max_text_tokens: int | None = None
    ) -> None:
        self.processor = processor
        self.modality = dict(modality or {})
        self.max_text_tokens = max_text_tokens

    def __call__(self, record: Record, seed: int) -> Sample:
        """Raises MediaError when a medium cannot be read, DataError when the text has nothing to learn."""
        features = {name: _listed(value) for name, value in record.features.items()}
        media: Mapping[str, Sequence[Tensor]] = {}
        if record.input_ids is not None and record.labels is not None:
            input_ids, labels = record.input_ids, record.labels
        else:
            input_ids, labels, media = self._from_turns(record, seed)
        if bool((labels == -100).all()):
            raise DataError(f"{record.id}: no token is learned; the answer is empty or cut off by max_text_tokens")
        return Sample(id=record.id, input_ids=input_ids, labels=labels, media=media, features=features)

    def _from_turns(self, record: Record, seed: int) -> tuple[Tensor, Tensor, Mapping[str, Sequence[Tensor]]]:
        raise DataError(f"{record.id}: expected input_ids")


def _listed(value: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [value] if isinstance(value, Tensor) else value
