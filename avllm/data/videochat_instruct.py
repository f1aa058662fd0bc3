"""VideoChat's instructions: conversations about videos of WebVid and about images."""

from dataclasses import dataclass

from avllm.data.annotated import Annotated
from avllm.data.annotations import member
from avllm.data.conversations import read_record
from avllm.data.entry_media import Reading
from avllm.data.records import Record


class VideoChatInstruct(Annotated):
    """Questions and answers about one video or image each.

    Layout: a list of `{"video", "QA": [{"q", "a"}]}` or of the same with `"image"`; the video is `<videos>/<video>`.
    What else `Conversations` reads of such an entry (`start` and `end`, VideoChat2's `i`) counts here too. So are
    videochat_instruct_11k.json (videos), and minigpt_caption_3k.json and llava_complex_reasoning_2k.json (images).
    White space around questions and answers is cut off.
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
            ignore: see `Conversations`.
        """

        annotations: str
        videos: str | None = None
        images: str | None = None
        ratio: float = 1.0
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "VideoChatInstruct":
            """Reads the annotations.

            Raises:
                DataError: a key is missing or a value is no text; file, index and key are named.
            """
            return VideoChatInstruct(self).checked()

    def __init__(self, config: Config) -> None:
        super().__init__(config.annotations)
        self.reading = Reading(
            roots={"video": config.videos, "image": config.images},
            sampling=config.sampling,
            num_frames=config.num_frames,
            crop=config.crop,
            ignore=config.ignore,
        )

    def record(self, index: int, seed: int) -> Record:
        """The medium before the first question, then all questions and answers in turn."""
        entry, where = self.entry(index)
        member(entry, "QA", where)
        return read_record(entry, where, self.reading)
