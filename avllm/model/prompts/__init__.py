"""How systems write a conversation: a table of prompt forms, one small file for each system.

A row is data; what it is made of is in `parts`. Some rows follow the chat template that a checkpoint's tokenizer
carries: `prompt_for` gives the row that holds for a tokenizer.
"""

from typing import Any

from avllm.errors import ConfigError
from avllm.model.prompts import nano, video_llama, video_llava, videochat, videollama2
from avllm.model.prompts.chat_template import with_chat_template
from avllm.model.prompts.parts import (
    Cut,
    Form,
    FormName,
    Kind,
    Medium,
    Part,
    Prompt,
    Slot,
    Special,
    Text,
    Turn,
)
from avllm.model.prompts.video_llama import CAPTION_REQUESTS
from avllm.model.prompts.writing import (
    conversation,
    drop_leading,
    fill,
    show,
    template_text,
    time_text,
    user_parts,
)

PROMPTS: dict[str, Prompt] = {
    **video_llama.PROMPTS,
    **videochat.PROMPTS,
    **video_llava.PROMPTS,
    **videollama2.PROMPTS,
    **nano.PROMPTS,
}


def prompt_for(name: str, tokenizer: Any) -> Prompt:
    """A row of the table as it holds for a tokenizer.

    Args:
        name: of the row.
        tokenizer: of the checkpoint; rows of VideoLLaMA 2 follow its chat template, if it has one.

    Raises:
        ConfigError: there is no such row, or the chat template cannot be followed.
    """
    if name not in PROMPTS:
        raise ConfigError(f"prompt: {name!r} is unknown, known are: {', '.join(sorted(PROMPTS))}")
    row = PROMPTS[name]
    return with_chat_template(row, tokenizer) if row.uses_chat_template else row


__all__ = [
    "CAPTION_REQUESTS",
    "PROMPTS",
    "Cut",
    "Form",
    "FormName",
    "Kind",
    "Medium",
    "Part",
    "Prompt",
    "Slot",
    "Special",
    "Text",
    "Turn",
    "conversation",
    "drop_leading",
    "fill",
    "prompt_for",
    "show",
    "template_text",
    "time_text",
    "user_parts",
]
