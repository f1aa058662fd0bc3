"""nano's tokenizer: a byte-level BPE of some hundred tokens, made from what can be said about its world."""

from functools import cache, lru_cache
from typing import Literal

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from avllm.nano.grammar import GRAMMAR, wordings
from avllm.nano.language import FILLER, NO_PICTURE, NO_SOUND, answers, random_facts
from avllm.nano.world import COLOURS, MOTIONS, THINGS

VOCAB_SIZE = 704
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
TEMPLATE_WORDS = ("human: ", " ?\nassistant:", "\nhuman: ")  # of the row "nano" in avllm.model.prompts


def corpus(num_facts: int = 400) -> list[str]:
    """Wordings, answers and the words of the prompt; the words of the world often enough to become single tokens."""
    rng = np.random.default_rng(0)
    texts = [text for kind in GRAMMAR for text in wordings(kind, "any")[:: max(1, len(wordings(kind, "any")) // 150)]]
    texts = [text.format(thing="drum", sound="drum") for text in texts]
    texts += [text for _ in range(num_facts) for text in answers(random_facts(rng)).values()]
    words = [*THINGS, *COLOURS, *MOTIONS, *TEMPLATE_WORDS, FILLER, "?", ",", NO_PICTURE, NO_SOUND]
    every = (text for kind in GRAMMAR for text in wordings(kind, "any"))
    words += sorted({word for text in (*texts, *every) for word in text.split() if "{" not in word})
    return texts + [word for word in words for _ in range(60)] + [word for word in TEMPLATE_WORDS for _ in range(300)]


@cache
def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains the tokenizer; the same every time. Letters count as lower case, and text starts like a new word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )  # type: ignore[call-arg]
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


@lru_cache(maxsize=100_000)
def ids_of(text: str) -> tuple[int, ...]:
    """Ids of a piece of text, without marks."""
    return tuple(build_tokenizer().backend_tokenizer.encode(text, add_special_tokens=False).ids)


@cache
def word_id(word: str) -> int:
    """The one id of a word of the world.

    Raises:
        ValueError: the tokenizer splits the word.
    """
    ids = ids_of(word)
    if len(ids) != 1:
        raise ValueError(f"the word {word!r} takes {len(ids)} tokens, expected 1; raise VOCAB_SIZE")
    return ids[0]


# Words that stand in slots have ids of their own, after those of text: text never turns into them, and the decoder can
# tell what is seen, heard and said.
SLOT_WORDS = {
    "video": (FILLER, "one", "two", *THINGS, *COLOURS, *MOTIONS),
    "audio": (FILLER, "one", "two", "three", *THINGS),
}


@cache
def slot_word_ids(stream: Literal["video", "audio"]) -> dict[str, int]:
    """Word -> its id in the slots of a stream."""
    first = len(build_tokenizer()) + (len(SLOT_WORDS["video"]) if stream == "audio" else 0)
    return {word: first + index for index, word in enumerate(SLOT_WORDS[stream])}
