"""From the parts of a prompt to token ids and labels."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer, pre_tokenizers

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
    special tokens. A sentencepiece tokenizer puts its `▁` before every piece, also before one that begins with a space;
    with `legacy: false` not after a special token.

    Args:
        parts: the prompt.
        tokenizer: a fast tokenizer of `transformers`.
        slot_ids: branch -> id of its slots.
        max_answer_tokens: learned ids that are kept, from the first; the end mark may be lost.

    Raises:
        ValueError: the tokenizer lacks a special token of the prompt form.
    """
    result = Encoded()
    follows_special = False
    for piece in _pieces(parts):
        match piece:
            case Slot():
                slots = [slot_ids[piece.branch]] * piece.num_tokens
                result.add(slots, [IGNORED] * len(slots))
            case Special():
                token = special_id(tokenizer, piece.name)
                result.add([token], [token if piece.is_answer else IGNORED])
            case list():
                _add_text(result, piece, tokenizer, follows_special)
        follows_special = isinstance(piece, Special)
    if max_answer_tokens is None:
        return result
    answer = [index for index, label in enumerate(result.labels) if label != IGNORED]
    end = answer[max_answer_tokens] if len(answer) > max_answer_tokens else len(result.labels)
    return Encoded(input_ids=result.input_ids[:end], labels=result.labels[:end])


def special_id(tokenizer: Any, name: str) -> int:
    """Id of a special token.

    Args:
        tokenizer: of the conversation.
        name: `bos`, `eos`, or the token's text.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    if name in ("bos", "eos"):
        token = getattr(tokenizer, f"{name}_token_id")
    else:
        token = tokenizer.get_added_vocab().get(name)
    if token is None:
        raise ValueError(f"the prompt form uses {{{name}}}, the tokenizer has no such special token")
    return token


def _pieces(parts: Iterable[Part]) -> Iterator[Slot | Special | Cut | list[Text]]:
    texts: list[Text] = []
    for part in parts:
        if isinstance(part, Text):
            if part.text:
                texts.append(part)
            continue
        if texts:
            yield texts
            texts = []
        yield part
    if texts:
        yield texts


def _add_text(result: Encoded, texts: list[Text], tokenizer: Any, follows_special: bool) -> None:
    ids, spans = _tokenise("".join(text.text for text in texts), tokenizer, follows_special)
    is_answer = [text.is_answer for text in texts for _ in text.text]
    labels = [
        token if is_answer[min(max(start, end - 1), len(is_answer) - 1)] else IGNORED
        for token, (start, end) in zip(ids, spans, strict=True)
    ]
    result.add(ids, labels)


def _tokenise(text: str, tokenizer: Any, follows_special: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of a piece and the letters [start, end) that each stands for."""
    prefix = _prefix_scheme(tokenizer)
    if prefix == "first" and follows_special:
        out = _without_prefix(tokenizer).encode(text, add_special_tokens=False)
        return out.ids, out.offsets
    # Metaspace leaves its prefix out where a space begins the text; sentencepiece does not.
    moved = int(prefix in ("always", "first") and text[0] in " ▁")
    # split_special_tokens: `</s>` in a text is tokenised letter by letter.
    out = tokenizer(
        " " * moved + text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    return out.input_ids, [(max(start - moved, 0), max(end - moved, 0)) for start, end in out.offset_mapping]


def _prefix_scheme(tokenizer: Any) -> str | None:
    """Where the tokenizer puts a `▁` of its own: always, first, never; None if it is of another kind."""
    scheme = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    return scheme.prepend_scheme if isinstance(scheme, pre_tokenizers.Metaspace) else None


_WITHOUT_PREFIX: WeakKeyDictionary[Any, Tokenizer] = WeakKeyDictionary()


def _without_prefix(tokenizer: Any) -> Tokenizer:
    """The tokenizer's fast part, which puts no `▁` in front and reads special tokens as text."""
    if tokenizer not in _WITHOUT_PREFIX:
        bare = copy.deepcopy(tokenizer.backend_tokenizer)
        bare.pre_tokenizer.prepend_scheme = "never"
        bare.encode_special_tokens = True
        _WITHOUT_PREFIX[tokenizer] = bare
    return _WITHOUT_PREFIX[tokenizer]
