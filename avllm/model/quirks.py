"""Faults of published code that a number may depend on; off unless `published_quirks` names them.

Two of them are fields of `avllm.media.Sampling`, which `avllm.model.reading` sets:

- `cut_long_videos` (VideoLLaMA 2): of more than `max_frames` frames the first are kept, so that the end of a long video
  is never seen; ours are spread over the whole video.
- `window_starts_early` (VideoLLaMA 2): a part of a video begins one frame before `start_s` and leaves out a frame that
  is still on screen at `end_s`.

One is an argument of `avllm.media.fbank_of`:

- `crop_sounds_at_random` (VideoLLaMA 2.1-AV): of a sound of more than 30 s a random part of 30 s is heard, another one
  each time (by Python's `random`); ours hears clips spread over all of it.

One is a field of `avllm.media.fit.Fit`:

- `drop_transparency` (all systems): transparent parts of an image show the colours that are stored beneath them, black
  as a rule (`Image.convert("RGB")`); ours are white, as in viewers.

One is a form of `avllm.model.prompts.videochat`:

- `learned_role_tags` (VideoChat): instructions were learned with the tags `###Human:` and `###Assistant:` around the
  answers, also the first one behind the medium; ours are the answers and what ends them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from avllm.model.prompts import Form, Part, Text, Turn, user_parts
from avllm.model.tokens import IGNORED, encode


def vicuna_label_drift(
    input_ids: Sequence[int], form: Form, turns: Sequence[Turn], tokenizer: Any, slot_ids: Mapping[str, int]
) -> list[int]:
    """The labels on which the Vicuna checkpoints of Video-LLaMA were tuned.

    The published code counts the tokens of each sentence with a bos of its own, so that its masks move on by one token
    per sentence, and it leaves the first two tokens of every question unmasked.

    Args:
        input_ids: the whole conversation, as the `train` form gives it.
        form: that form.
        turns: what it was filled with; all have answers.
        tokenizer: the tokenizer of the conversation.
        slot_ids: branch -> id of its slots.
    """

    def count(*parts: Part) -> int:
        return len(encode(parts, tokenizer, slot_ids).input_ids) + 1

    slots = set(slot_ids.values())
    labels = [IGNORED if token in slots else token for token in input_ids]
    start = count(Text(f"{form.system}\n\n"))
    labels[:start] = [IGNORED] * start
    for turn in turns:
        length = count(Text("###Human: "), *user_parts(form, turn), Text("\n"))
        for index in range(start + 2, min(start + length, len(labels))):
            labels[index] = IGNORED
        start += length + count(Text(f"###Assistant: {turn.answer}\n"))
    return labels


def cut_prompt_from_left(
    embeds: Float[Tensor, "b l d"], max_new_tokens: int, max_length: int = 2000
) -> Float[Tensor, "b m d"]:
    """Drops the start of a prompt that is too long, with its bos, system text and media, as the published chat does.

    Args:
        embeds: the embedded prompt.
        max_new_tokens: length of the answer.
        max_length: of both together.
    """
    return embeds[:, max(0, embeds.shape[1] + max_new_tokens - max_length) :]
