"""Videos and images with a caption each in one JSON list: the corpora of VideoChat's stage 1."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avllm.data.annotations import entries, read_json, text
from avllm.data.keys import present, unused
from avllm.data.packed import PackedTexts
from avllm.data.records import Medium, Record, Turn, media_path

SEPARATOR = "\x00"  # in no file name and no caption


class MediaCaptions:
    """Videos or images with a caption each, learned behind a request for it.

    Layout: a list of `{"video", "caption"}` or `{"image", "caption"}`; the medium is `<root>/<video>`. So are
    webvid_10m_train.json, cc3m_train.json, cc12m_train.json, sbu.json, vg.json and coco.json.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            annotations: the JSON file.
            root: folder of the media.
            ratio: share among the datasets of a stage.
            prompts: requests for a caption, one is drawn each time; none: learned from the medium alone.
            sampling: which frames, as named by `avllm.media.Sampling`; None is the system's setting.
            num_frames: how many; None is the system's setting.
            crop: share of the picture that a random cut keeps, see `Medium`.
            ignore: see `Conversations`.
        """

        annotations: str
        root: str
        ratio: float = 1.0
        prompts: tuple[str, ...] = ()
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "MediaCaptions":
            """Reads the annotations.

            Raises:
                DataError: a key is missing or a value is no text; file, index and key are named.
            """
            return MediaCaptions(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = Path(config.annotations)
        self._rows = PackedTexts(self._read())

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int, seed: int) -> Record:
        """The medium, a request or none, and the caption."""
        name, path, caption = self._rows[index].split(SEPARATOR)
        config, where = self.config, f"{self.path}[{index}]"
        kind: Literal["image", "video"] = "image" if name == "image" else "video"
        options: dict[str, Any] = {}
        if kind == "video":
            options = {"sampling": config.sampling, "num_frames": config.num_frames}
        source = media_path(Path(config.root), path, f"{where}.{name}")
        media = (Medium(kind=kind, source=source, options=options, crop=config.crop),)
        request = random.Random(seed).choice(config.prompts) if config.prompts else ""
        turns = (Turn(role="user", text=request, media=media), Turn(role="assistant", text=caption))
        return Record(id=where, turns=turns, form="train_caption" if request else "caption")

    def _read(self) -> Iterator[str]:
        for index, entry in enumerate(entries(read_json(self.path), str(self.path))):
            where = f"{self.path}[{index}]"
            kept = present(entry, where, self.config.ignore)
            name = "image" if "image" in kept else "video"
            unused(kept, (name, "caption"), where)
            yield SEPARATOR.join((name, text(entry, name, where), text(entry, "caption", where).strip()))
