"""The conversation styles of the LLaVA family, from which Video-LLaVA took its own: data of what stands around a turn.

The media of a turn follow each other and end with a line break; those with a place in the question stand bare there.
"""

from collections.abc import Mapping
from dataclasses import replace

from avllm.model.prompts.parts import Form

MEDIA: Mapping[str, str] = {
    "audio+video": "{video}{audio}\n{text}",
    "audio+image": "{image}{audio}\n{text}",
    "*": "{media}\n{text}",
}
USER = "The assistant gives helpful, detailed, and polite answers to the user's questions."
CURIOUS_USER = f"A chat between a curious user and an artificial intelligence assistant. {USER}"
CURIOUS_HUMAN = CURIOUS_USER.replace("user", "human")


def media_first(form: Form, *, joint: str = " ") -> Form:
    """The form for a system that moves the media of a question in front of it.

    Args:
        form: one of the styles below.
        joint: what is written in place of a medium that stood between two words.
    """
    return replace(form, placed=None, joint=joint)


def single(system: str) -> Form:
    """Rounds of `###Human: ...###Assistant: ...`, as in LLaVA's v0."""
    return Form(
        first="{bos}{cut}{system}###Human: {user}###Assistant:",
        later="###Human: {user}###Assistant:",
        answer=" {answer}",
        media=MEDIA,
        system=system,
    )


def two(system: str) -> Form:
    """Rounds of `USER: ... ASSISTANT: ...` that end with the end-of-sequence token, as in LLaVA's v1."""
    return Form(
        first="{bos}{cut}{system} USER: {user} ASSISTANT:",
        later="USER: {user} ASSISTANT:",
        answer=" {answer}{eos}",
        media=MEDIA,
        system=system,
        without_system="{bos}{cut}USER: {user} ASSISTANT:",
    )


def llama2(system: str) -> Form:
    """Rounds of `[INST] ... [/INST] ...` as LLaMA-2-chat has them."""
    return Form(
        first="{bos}{cut}[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]",
        later="{bos}[INST] {user} [/INST]",
        answer=" {answer} {eos}",
        media=MEDIA,
        system=system,
        without_system="{bos}{cut}[INST] {user} [/INST]",
    )


def chatml(system: str, *, end: str = "") -> Form:
    """Turns between `<|im_start|>` and `<|im_end|>`.

    Args:
        system: text of the first turn, which is the system's.
        end: what follows the end of a turn: nothing with MPT, a line break with Qwen.
    """
    close = f"{{<|im_end|>}}{end}"
    question = f"{{<|im_start|>}}user\n{{user}}{close}{{<|im_start|>}}assistant\n"
    return Form(
        first=f"{{<|im_start|>}}system\n{{system}}{close}{question}",
        later=question,
        answer=f"{{answer}}{close}",
        media=MEDIA,
        system=system,
    )
