"""VideoChat (arXiv:2305.06355): the demo, the captions of stage 1 and the instructions of stage 2.

In the demo a medium is a turn of its own of the human, and so is the question, and each text between two media. Its
tags are ordinary text.
"""

from collections.abc import Mapping

from avllm.model.prompts.parts import Form, Prompt

_TIMES = "The video contains {num_frames} frames sampled at {times} seconds."
_TRAIN_MEDIA = {
    "video": f"<Video>{{video}}</Video> {_TIMES} ###Human: {{text}}",
    "image": "<Image>{image}</Image> ###Human: {text}",
}
_PLACED = {"video": f"<Video>{{video}}</Video> {_TIMES}", "image": "<Image>{image}</Image>"}


def _with_learned_tags(media: Mapping[str, str]) -> dict[str, str]:
    """The wording of the media with the tag of the question among what is learned."""
    return {kind: text.replace(" ###Human:", "{learn} ###Human:{ignore}") for kind, text in media.items()}


_CAPTION = Form(
    first="{bos}{cut}###Human: {user} ###Assistant: {cut}",
    answer="{answer}###",
    media={"video": "<Video>{video}</Video> {text}", "image": "<Image>{image}</Image> {text}"},
    placed={"video": "<Video>{video}</Video> ", "image": "<Image>{image}</Image> "},
)
_TRAIN = Form(
    first="{bos}{cut}{system}###Human: {user} ###Assistant:",
    later="Human: {user} ###Assistant:",
    answer=" {answer} ###",
    media=_TRAIN_MEDIA,
    placed=_PLACED,
    joint=" ###Human: ",
)

# Stage 2 was trained on the tags of the roles too.
_LEARNED_TAGS = Form(
    first="{bos}{cut}{system}###Human: {user}{learn} ###Assistant:{ignore}",
    later="{learn}Human:{ignore} {user}{learn} ###Assistant:{ignore}",
    answer=_TRAIN.answer,
    media=_with_learned_tags(_TRAIN_MEDIA),
    placed=_PLACED,
    joint="{learn} ###Human:{ignore} ",
)

PROMPTS = {
    "videochat": Prompt(
        chat=Form(
            first="{bos}{cut}{system}###Human: {user}\n###Assistant:",
            later="###Human: {user}\n###Assistant:",
            answer=" {answer}",
            media={
                "video": f"<Video>{{video}}</Video> {_TIMES}\n###Human: {{text}}",
                "image": "<Image>{image}</Image>\n###Human: {text}",
            },
            placed=_PLACED,
            joint="\n###Human: ",
        ),
        train=_TRAIN,
        caption=_CAPTION,
        train_caption=_CAPTION,
        stop=("###",),
        answer_after="Assistant:",
        quirk_forms={"learned_role_tags": _LEARNED_TAGS},
    )
}

VIDEO_REQUESTS = (
    "Describe the following video concisely.",
    "Provide a brief description of the given video clip.",
    "Offer a succinct explanation of the footage presented.",
    "Summarize the visual content of the following video.",
    "Give a short and clear explanation of the subsequent video clip.",
    "Share a concise interpretation of the video provided.",
    "Present a compact description of the clip's key features.",
    "Relay a brief, clear account of the video shown.",
    "Render a clear and concise summary of the video below.",
    "Write a terse but informative summary of the following video clip.",
    "Create a compact narrative representing the video presented.",
)
IMAGE_REQUESTS = (
    "Describe the following image concisely.",
    "Provide a brief description of the given image.",
    "Offer a succinct explanation of the picture presented.",
    "Summarize the visual content of the following image.",
    "Give a short and clear explanation of the subsequent image.",
    "Share a concise interpretation of the image provided.",
    "Present a compact description of the photo's key features.",
    "Relay a brief, clear account of the picture shown.",
    "Render a clear and concise summary of the photo below.",
    "Write a terse but informative summary of the following picture.",
    "Create a compact narrative representing the image presented.",
)
