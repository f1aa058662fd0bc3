"""VideoLLaMA 2 (arXiv:2406.07476) and 2.1: the chat template of the checkpoint decides, these forms hold without one.

Mistral, Mixtral and LLaMA are told at inference, though not in training, how to behave, in tags that some templates
write around it once more. A template that refuses a system text goes without. Without any template, the published code
had the one that transformers gave to every LLaMA tokenizer. All media stand in front of their question; the training
takes their tags out of it, wherever they stand, and the white space at its ends.
"""

from dataclasses import replace

from avllm.model.prompts import llava
from avllm.model.prompts.parts import Form, Prompt

_HELPFUL = (
    "<<SYS>>\n"
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information.\n"
    "<</SYS>>"
)
# A question without media is put behind an empty place for one.
_CHAT_MEDIA = {**llava.MEDIA, "": "\n{text}"}
# Stage 1: no template, and all the text is learned.
_CAPTION = Form(first="{learn}{user}", answer=" {answer}", media={"*": "{media}{text}"}, placed=None)
_REQUEST = Form(first="{learn}{user}", later="{learn} {user}", answer=" {answer}", media=llava.MEDIA, placed=None)
_MISTRAL = Form(
    first="{bos}[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]",
    later="{bos}[INST] {user} [/INST]",
    answer=" {answer} {eos}",
    media=llava.MEDIA,
    without_system="{bos}[INST] {user} [/INST]",
    strips=True,
)
_QWEN2 = llava.chatml("You are a helpful assistant.", end="\n")

PROMPTS = {
    "videollama2_mistral": Prompt(
        chat=replace(llava.media_first(_MISTRAL), system=_HELPFUL, media=_CHAT_MEDIA),
        train=llava.media_first(_MISTRAL, joint=""),
        caption=_CAPTION,
        train_caption=_REQUEST,
        stop=("</s>",),
        uses_chat_template=True,
    ),
    "videollama2_qwen2": Prompt(
        chat=replace(llava.media_first(_QWEN2), media=_CHAT_MEDIA),
        train=llava.media_first(_QWEN2, joint=""),
        caption=_CAPTION,
        train_caption=_REQUEST,
        stop=("<|im_end|>",),
        uses_chat_template=True,
    ),
}
