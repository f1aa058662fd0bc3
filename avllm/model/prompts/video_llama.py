"""Video-LLaMA (arXiv:2306.02858), with Vicuna and with LLaMA-2-chat.

The published tokenizer opened every piece of text after a special token as a new text, whence `{bos}{cut}`.
"""

from avllm.model.prompts.parts import Form, Prompt

# The runs of spaces come from a line continued inside a string of the published code;
# the models were never trained on these sentences, but their users' results come from them.
_SYSTEM = (
    "You are able to understand the visual content that the user provides. "
    "Follow the instructions carefully and explain your answers in detail."
)
_HEAR = "Close your eyes, open your ears and you imagine only based on the sound that: {audio}."
_SEE = "Close your ears, open your eyes and you see that "
_ANSWER = "Now answer my question based on what you have just "
_TIMES = "The video contains {num_frames} frames sampled at {times} seconds."
_CHAT_MEDIA = {
    "video": f"<Video>{{video}}</Video> {_TIMES}  {{text}}",
    "image": "<Image>{image}</Image>  {text}",
    "audio": f"{_HEAR}{' ' * 17}{_ANSWER}heard. {{text}}",
    "audio+video": f"{_HEAR}{' ' * 17}{_SEE}<Video>{{video}}</Video>.{' ' * 18}{_ANSWER}seen and heard. {{text}}",
    "audio+image": f"{_HEAR}{' ' * 17}{_SEE}<Image>{{image}}</Image>.{' ' * 18}{_ANSWER}seen and heard. {{text}}",
}
_TRAIN_MEDIA = {
    **_CHAT_MEDIA,
    "video": f"<Video>{{video}}</Video> {_TIMES} {{text}}",
    "image": "<Image>{image}</Image>\n{text}",
}
# The published training puts these words where the tag of an image stands, and nothing around them. Its videos and the
# media of its chat always stand in front; within a text they are announced in the same words.
_CHAT_PLACED = {
    "video": f"<Video>{{video}}</Video> {_TIMES} ",
    "image": "<Image>{image}</Image> ",
    "audio": f"{_HEAR} ",
    "audio+video": f"{_HEAR}{' ' * 17}{_SEE}<Video>{{video}}</Video>. ",
    "audio+image": f"{_HEAR}{' ' * 17}{_SEE}<Image>{{image}}</Image>. ",
}
_TRAIN_PLACED = {**_CHAT_PLACED, "image": "<Image>{image}</Image>"}
_CAPTION_MEDIA = {
    "video": "<Video>{video}</Video> {text}",
    "image": "<Image>{image}</Image> {text}",
    "audio": "{audio} {text}",
}
_CAPTION_PLACED = {"video": "<Video>{video}</Video>", "image": "<Image>{image}</Image>"}
_STAGE1 = Form(
    first="{bos}{user}{cut}",
    answer="{answer}\n",
    media={"audio+video": "{audio}{video}", "*": "{media}"},
    placed=None,
)
_LLAMA2_SYSTEM = "{bos}{cut}[INST] <<SYS>>\n{system}\n<</SYS>>\n\n"

CAPTION_REQUESTS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)

PROMPTS: dict[str, Prompt] = {
    "vicuna": Prompt(
        chat=Form(
            first="{bos}{cut}{system}###Human: {user}###Assistant:",
            later="###Human: {user}###Assistant:",
            answer=" {answer}",
            media=_CHAT_MEDIA,
            placed=_CHAT_PLACED,
            system=_SYSTEM,
            system_with_audio="",
        ),
        train=Form(
            first="{bos}{cut}{system}\n\n###Human: {user}\n###Assistant:",
            later="Human: {user}\n###Assistant:",
            answer=" {answer}\n###",
            media=_TRAIN_MEDIA,
            placed=_TRAIN_PLACED,
        ),
        caption=_STAGE1,
        train_caption=Form(
            first="{bos}{cut}###Human: {user} ###Assistant: {cut}",
            answer="{answer}###",
            media=_CAPTION_MEDIA,
            placed=_CAPTION_PLACED,
        ),
        stop=("###",),
        answer_after="Assistant:",
    ),
    "llama2": Prompt(
        chat=Form(
            first=_LLAMA2_SYSTEM + "{user} [/INST]",
            later="{bos}{cut}[INST] {user} [/INST]",
            answer=" {answer} {eos}",
            media=_CHAT_MEDIA,
            placed=_CHAT_PLACED,
            system=_SYSTEM,
            system_with_audio="",
        ),
        train=Form(
            first=_LLAMA2_SYSTEM + "{user} [/INST]",
            later="{bos}{cut}[INST] {user} [/INST]",
            answer=" {answer} {eos}",
            media=_TRAIN_MEDIA,
            placed=_TRAIN_PLACED,
            system=" ",
        ),
        caption=_STAGE1,
        train_caption=Form(
            first=_LLAMA2_SYSTEM + "{user} [/INST] {cut}",
            answer="{answer}{eos}",
            media=_CAPTION_MEDIA,
            placed=_CAPTION_PLACED,
            system=" ",
        ),
        stop=("</s>",),
        answer_after="ASSISTANT:",
    ),
}
