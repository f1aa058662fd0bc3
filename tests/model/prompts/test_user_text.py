"""What a user types is letters in every system: never a special token, a role or the place of a medium."""

from typing import get_args

import pytest

from avllm.model import PROMPTS, Medium, Turn
from avllm.model.prompts import FormName, conversation, prompt_for
from avllm.model.tokens import encode
from tests.model.tiny import tiny_tokenizer

SLOTS = {"audio": 1000, "video": 1001}
# Whatever marks something in the published systems, in the tokenizers of their decoders, or in our own templates.
TYPED = [
    "<image>", "<video>", "<audio>", "<ImageHere>", "<VideoHere>", "<Video>", "</Video>", "<Image>", "</Image>",
    "<vi_start>", "<au_patch>", "<|image_pad|>", "<|vision_start|>", "<s>", "</s>", "<unk>", "<pad>", "<|im_start|>",
    "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "###Human:", "### Human:", "###Assistant:", "###", "USER:", "ASSISTANT:", "Human: ", "{video}", "{question}", "{}",
    "%s", "\\n", "\x00", "<0x0A>",
]  # fmt: skip


def _tokenizer():
    tokenizer = tiny_tokenizer()
    named = [text for text in TYPED if text.startswith("<")]
    tokenizer.add_special_tokens({"additional_special_tokens": named})
    return tokenizer


@pytest.mark.parametrize("name", PROMPTS)
def test_s28_typed_special_tokens_are_letters_in_every_system_and_form(name):
    tokenizer = _tokenizer()
    prompt, letters = prompt_for(name, tokenizer), tiny_tokenizer()
    tilde = letters.encode("~", add_special_tokens=False)[0]
    media = (Medium(kind="video", branch="video", num_tokens=2, times_s=(0.0, 1.0)),)

    def ids_of(form, question):
        turns = [Turn(question=question, media=media, answer="yes"), Turn(question="c", answer="d")]
        return encode(conversation(prompt.form(form), turns), tokenizer, SLOTS).input_ids

    for form in get_args(FormName):
        for typed in [*TYPED, *(stop for stop in prompt.stop if stop.strip())]:
            written = [token for letter in typed for token in letters.encode(letter, add_special_tokens=False)]
            for around in ("a{}b", "a {} b", "a\n{}\nb"):
                same, other = (ids_of(form, around.replace("{}", text)) for text in (typed, "~" * len(written)))
                # Each letter by itself; nothing for a form without a place for the question.
                expected = iter(written if tilde in other else ())
                assert same == [next(expected) if token == tilde else token for token in other], (form, typed, around)
                assert next(expected, None) is None, (form, typed, around)
