"""VideoChat's instructions: conversations about videos of WebVid and about images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avllm.data.annotated import Annotated
from avllm.data.annotations import entries, member, text
from avllm.data.records import Medium, Record, Turn, media_path
from avllm.errors import DataError


class VideoChatInstruct(Annotated):
    """Questions and answers about one video or image each.

    Layout: a list of `{"video", "QA": [{"q", "a"}]}` or of the same with `"image"`; the video is `<videos>/<video>`.
    So are videochat_instruct_11k.json (videos), and minigpt_caption_3k.json and llava_complex_reasoning_2k.json
    (images). White space around questions and answers is cut off.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            annotations: the JSON file.
            videos: folder of the videos; not needed where all are images.
            images: folder of the images; not needed where all are videos.
            ratio: share among the datasets of a stage.
            sampling: which frames, as named by `avllm.media.Sampling`; None is the system's setting.
            num_frames: how many; None is the system's setting.
            crop: share of the picture that a random cut keeps, see `Medium`.
        """

        annotations: str
        videos: str | None = None
        images: str | None = None
        ratio: float = 1.0
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None

        def build(self, context: object) -> "VideoChatInstruct":
            """Reads the annotations.

            Raises:
                DataError: a key is missing or a value is no text; file, index and key are named.
            """
            return VideoChatInstruct(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(config.annotations)

    def record(self, index: int, seed: int) -> Record:
        """The medium before the first question, then all questions and answers in turn."""
        entry, where = self.entry(index)
        media = (self._medium(entry, where),)
        turns: list[Turn] = []
        for i, pair in enumerate(entries(member(entry, "QA", where), f"{where}.QA")):
            spot = f"{where}.QA[{i}]"
            turns.append(Turn(role="user", text=text(pair, "q", spot).strip(), media=() if turns else media))
            turns.append(Turn(role="assistant", text=text(pair, "a", spot).strip()))
        return Record(id=where, turns=tuple(turns))

    def _medium(self, entry: Any, where: str) -> Medium:
        config = self.config
        is_image = isinstance(entry, dict) and "image" in entry
        name, folder = ("image", config.images) if is_image else ("video", config.videos)
        path = text(entry, name, where)
        if folder is None:
            raise DataError(f"{where}: is about the {name} {path}; set {name}s to the folder of the {name}s")
        options = {} if is_image else {"sampling": config.sampling, "num_frames": config.num_frames}
        source = media_path(Path(folder), path, f"{where}.{name}")
        return Medium(kind="image" if is_image else "video", source=source, options=options, crop=config.crop)
