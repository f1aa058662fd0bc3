"""VideoChat-instruct-11K: conversations about WebVid videos."""

from dataclasses import dataclass
from pathlib import Path

from avllm.data.annotations import entries, member, read_json, text
from avllm.data.records import Medium, Record, Turn, media_path


class VideoChatInstruct:
    """Questions and answers about one video each.

    Layout: a list of `{"video", "QA": [{"q", "a"}]}`; the video is `<videos>/<video>`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            annotations: the JSON file.
            videos: folder of the videos.
            ratio: share among the datasets of a stage.
            sampling: which frames, as named by `avllm.media.Sampling`; None is the system's setting.
            num_frames: how many; None is the system's setting.
            crop: share of the picture that a random cut keeps, see `Medium`.
        """

        annotations: str
        videos: str
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
        self.path = Path(config.annotations)
        self._entries = entries(read_json(self.path), str(self.path))
        for index in range(len(self)):
            self.record(index, 0)

    def __len__(self) -> int:
        return len(self._entries)

    def record(self, index: int, seed: int) -> Record:
        """The video before the first question, then all questions and answers in turn."""
        entry, where = self._entries[index], f"{self.path}[{index}]"
        path = media_path(Path(self.config.videos), text(entry, "video", where), f"{where}.video")
        options = {"sampling": self.config.sampling, "num_frames": self.config.num_frames}
        media = (Medium(kind="video", source=path, options=options, crop=self.config.crop),)
        turns: list[Turn] = []
        for i, pair in enumerate(entries(member(entry, "QA", where), f"{where}.QA")):
            spot = f"{where}.QA[{i}]"
            turns.append(Turn(role="user", text=text(pair, "q", spot), media=() if turns else media))
            turns.append(Turn(role="assistant", text=text(pair, "a", spot)))
        return Record(id=where, turns=tuple(turns))
