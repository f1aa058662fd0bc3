"""Video-LLaVA (arXiv:2311.10122), and its port to transformers.

The released chat greets a curious human (`llava_v1`), both stages of the training a curious user (`v1`). The chat puts
all media in front of a question, the training leaves them where the question has their tags.
"""

from dataclasses import replace

from avllm.model.prompts import llava
from avllm.model.prompts.parts import Form, Prompt

_TRAIN = llava.two(llava.CURIOUS_USER)
# `plain` of the published code: the request is left out. All media keep their slots.
_CAPTION = Form(first="{bos}{cut}{user}", answer="{answer}\n", media={"*": "{media}"}, placed=None)
_LLAMA2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_LLAMA2 = llava.llama2(_LLAMA2_SYSTEM)

PROMPTS = {
    "video_llava": Prompt(
        chat=llava.media_first(llava.two(llava.CURIOUS_HUMAN)),
        train=_TRAIN,
        caption=_CAPTION,
        train_caption=_TRAIN,
        stop=("</s>",),
    ),
    # The port's users are told of neither a system text nor an end of the answer within a conversation.
    "video_llava_hf": Prompt(
        chat=replace(
            _TRAIN,
            first="{bos}{cut}{system}USER: {user} ASSISTANT:",
            later=" USER: {user} ASSISTANT:",
            answer=" {answer}",
            system="",
            without_system=None,
            media={"video": "{video}\n{text}", "image": "{image}\n{text}"},
            placed={"video": "{video}\n", "image": "{image}\n"},
        ),
        train=_TRAIN,
        caption=_CAPTION,
        train_caption=_TRAIN,
        stop=("</s>",),
    ),
    "video_llava_llama2": Prompt(
        chat=llava.media_first(_LLAMA2),
        train=_LLAMA2,
        caption=_CAPTION,
        train_caption=_LLAMA2,
        stop=("</s>",),
    ),
}
