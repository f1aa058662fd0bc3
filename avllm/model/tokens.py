"""From the parts of a prompt to token ids and labels."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from avllm.model.prompts import Cut, Part, Slot, Special, Text

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A prompt as ids.

    Args:
        input_ids: slots as ids beyond the vocabulary.
        labels: the ids of the answers, -100 elsewhere; not shifted.
    """

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: Iterable[int], labels: Iterable[int]) -> None:
        """Appends to both."""
        self.input_ids.extend(ids)
        self.labels.extend(labels)


def encode(
    parts: Iterable[Part], tokenizer: Any, slot_ids: Mapping[str, int], *, max_answer_tokens: int | None = None
) -> Encoded:
    """Tokenises the texts piece by piece; special tokens and slots come from the parts alone.

    A piece is what stands between special tokens, slots and cuts, as in the published systems. No text is searched for
    special tokens.

    Args:
        parts: the prompt.
        tokenizer: a fast tokenizer of `transformers`.
        slot_ids: branch -> id of its slots.
        max_answer_tokens: ids of a caption that are kept, from its first; the end mark may be lost.
    """
    result = Encoded()
    for piece in _pieces(parts):
        match piece:
            case Slot():
                slots = [slot_ids[piece.branch]] * piece.num_tokens
                result.add(slots, [IGNORED] * len(slots))
            case Special():
                token = getattr(tokenizer, f"{piece.name}_token_id")
                if token is None:
                    raise ValueError(f"the prompt form uses {{{piece.name}}}, the tokenizer has no {piece.name}_token")
                result.add([token], [token if piece.is_answer else IGNORED])
            case list():
                _add_text(result, piece, tokenizer)
    if max_answer_tokens is None:
        return result
    answer = [index for index, label in enumerate(result.labels) if label != IGNORED]
    end = answer[max_answer_tokens] if len(answer) > max_answer_tokens else len(result.labels)
    return Encoded(input_ids=result.input_ids[:end], labels=result.labels[:end])


def _pieces(parts: Iterable[Part]) -> Iterator[Slot | Special | list[Text]]:
    texts: list[Text] = []
    for part in parts:
        if isinstance(part, Text):
            texts.append(part)
            continue
        if texts:
            yield texts
            texts = []
        if not isinstance(part, Cut):
            yield part
    if texts:
        yield texts


def _add_text(result: Encoded, texts: list[Text], tokenizer: Any) -> None:
    joined = "".join(text.text for text in texts)
    has_answer = any(text.is_answer for text in texts)
    # split_special_tokens: `</s>` in a text is tokenised letter by letter.
    out = tokenizer(joined, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=has_answer)
    if not has_answer:
        result.add(out.input_ids, [IGNORED] * len(out.input_ids))
        return
    is_answer = [text.is_answer for text in texts for _ in text.text]
    labels = [
        token if is_answer[min(max(start, end - 1), len(is_answer) - 1)] else IGNORED
        for token, (start, end) in zip(out.input_ids, out.offset_mapping, strict=True)
    ]
    result.add(out.input_ids, labels)
