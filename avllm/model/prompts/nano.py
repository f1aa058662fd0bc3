"""nano: as short as can be, the same in chat and training."""

from avllm.model.prompts.parts import Form, Prompt

_CAPTION_MEDIA = {"audio+video": "{audio}{video}", "*": "{media}"}
_NANO_MEDIA = {
    "video": "{video} {text}",
    "image": "{image} {text}",
    "audio": "{audio} {text}",
    "audio+video": "{video}{audio} {text}",
    "audio+image": "{image}{audio} {text}",
}
_NANO_PLACED = {kinds: text.removesuffix("{text}") for kinds, text in _NANO_MEDIA.items()}
_NANO = Form(
    first="{bos}human: {user}\nassistant:",
    later="\nhuman: {user}\nassistant:",
    answer=" {answer}{eos}",
    media=_NANO_MEDIA,
    placed=_NANO_PLACED,
)
PROMPTS = {
    "nano": Prompt(
        chat=_NANO,
        train=_NANO,
        caption=Form(first="{bos}{user}", answer=" {answer}{eos}", media=_CAPTION_MEDIA, placed=None),
        train_caption=_NANO,
    )
}
