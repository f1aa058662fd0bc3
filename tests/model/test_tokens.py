"""Where a sentencepiece tokenizer puts its `▁`, special tokens by name, and what is learned."""

import string
from typing import Any

import pytest
from transformers import LlamaTokenizer

from avllm.model.prompts import Cut, Form, Slot, Special, Text, Turn, conversation
from avllm.model.tokens import IGNORED, encode
from tests.model.tiny import tiny_tokenizer

SLOTS = {"video": 900}


def letters(legacy: bool) -> Any:
    """A tokenizer of sentencepiece's kind with one token for each letter."""
    marks = ["<unk>", "<s>", "</s>", "▁"]
    vocab = {token: index for index, token in enumerate([*marks, *string.ascii_letters, *string.punctuation])}
    return LlamaTokenizer(vocab=vocab, merges=[], legacy=legacy)


def tokens(parts: list[Any], *, legacy: bool = True) -> str:
    tokenizer = letters(legacy)
    return "".join(
        "*" if token == 900 else tokenizer.convert_ids_to_tokens(token)
        for token in encode(parts, tokenizer, SLOTS).input_ids
    )


@pytest.mark.parametrize("legacy", [True, False])
def test_every_piece_begins_like_a_text_of_its_own(legacy):
    parts = [Text("a"), Text("b"), Slot("video", 2), Text("c"), Cut(), Text("d e")]
    assert tokens(parts, legacy=legacy) == "▁ab**▁c▁d▁e"


@pytest.mark.parametrize("legacy", [True, False])
def test_a_piece_that_begins_with_a_space_keeps_its_own_prefix(legacy):
    assert tokens([Slot("video", 1), Text(" a"), Cut(), Text("  b")], legacy=legacy) == "*▁▁a▁▁▁b"


@pytest.mark.parametrize(("legacy", "expected"), [(True, "▁a</s>▁b▁▁c"), (False, "▁a</s>b▁▁c")])
def test_text_after_a_special_token_has_a_prefix_only_in_legacy_tokenizers(legacy, expected):
    assert tokens([Text("a"), Special("eos"), Text("b"), Cut(), Text(" c")], legacy=legacy) == expected


def test_a_cut_after_a_special_token_begins_a_text():
    assert tokens([Special("bos"), Cut(), Text("a")], legacy=False) == "<s>▁a"
    assert tokens([Special("bos"), Text("a</s>")], legacy=False) == "<s>a</s>"


def test_typed_special_tokens_are_letters_after_a_special_token_too():
    ids = encode([Special("bos"), Text("</s>")], letters(False), SLOTS).input_ids
    assert letters(False).convert_ids_to_tokens(ids) == ["<s>", "<", "/", "s", ">"]


def test_labels_follow_the_letters_although_a_space_was_put_in_front():
    parts = [Slot("video", 1), Text(" a"), Text(" b", is_answer=True), Special("eos", is_answer=True)]
    encoded = encode(parts, letters(True), SLOTS)
    learned = [token for token in encoded.labels if token != IGNORED]
    assert letters(True).convert_ids_to_tokens(learned) == ["▁", "b", "</s>"]


def test_any_special_token_goes_by_its_text():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    assert encode([Special("<|im_end|>")], tokenizer, SLOTS).input_ids == [len(tokenizer) - 1]


@pytest.mark.parametrize("name", ["<|im_end|>", "eos"])
def test_names_a_special_token_that_the_tokenizer_lacks(name):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="the tokenizer has no such special token"):
        encode([Special(name)], tokenizer, SLOTS)


def test_text_between_learn_and_ignore_is_learned():
    form = Form(first="a{learn}b{user}{ignore}c", answer="{answer}!")
    encoded = encode(conversation(form, [Turn(question="q", answer="x")]), tiny_tokenizer(), SLOTS)
    assert tiny_tokenizer().decode([label for label in encoded.labels if label != IGNORED]) == "bqx!"
