"""Images with captions as `filter_cap.json`: LLaVA-CC3M-Pretrain-595K and cc_sbu_align (MiniGPT-4)."""

import random
from dataclasses import dataclass
from pathlib import Path

from avllm.data.annotations import entries, member, read_json, text
from avllm.data.captions import clean_caption
from avllm.data.keys import present, unused
from avllm.data.records import Medium, Record, Turn, media_path


class ImageCaptions:
    """Images with a caption each.

    Layout: `<root>/filter_cap.json` is `{"annotations": [{"image_id", "caption"}]}`; the image of an entry is
    `<root>/image/<image_id>.jpg`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            root: folder of the layout.
            ratio: share among the datasets of a stage.
            prompts: requests for a description, one is drawn each time; none: learned from the image alone.
            clean: clean the captions as published in stage 1.
            max_words: of a cleaned caption.
            annotations: name of the file.
            images: name of the folder.
            crop: share of the picture that a random cut keeps, see `Medium`.
            ignore: see `Conversations`.
        """

        root: str
        ratio: float = 1.0
        prompts: tuple[str, ...] = ()
        clean: bool = True
        max_words: int = 50
        annotations: str = "filter_cap.json"
        images: str = "image"
        crop: tuple[float, float] | None = None
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "ImageCaptions":
            """Reads the annotations.

            Raises:
                DataError: a key is missing or a value is no text; file, index and key are named.
            """
            return ImageCaptions(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = Path(config.root) / config.annotations
        self.images = Path(config.root) / config.images
        where = f"{self.path}: annotations"
        listed = entries(member(read_json(self.path), "annotations", str(self.path)), where)
        self._entries = []
        for index, entry in enumerate(listed):
            spot = f"{where}[{index}]"
            self._entries.append((text(entry, "image_id", spot), text(entry, "caption", spot)))
            unused(present(entry, spot, config.ignore), ("image_id", "caption"), spot)

    def __len__(self) -> int:
        return len(self._entries)

    def record(self, index: int, seed: int) -> Record:
        """The image, a request or none, and the caption."""
        name, caption = self._entries[index]
        where = f"{self.path}: annotations[{index}]"
        path = media_path(self.images, f"{name}.jpg", where)
        media = (Medium(kind="image", source=path, crop=self.config.crop),)
        request = random.Random(seed).choice(self.config.prompts) if self.config.prompts else ""
        if self.config.clean:
            caption = clean_caption(caption, max_words=self.config.max_words)
        turns = (Turn(role="user", text=request, media=media), Turn(role="assistant", text=caption))
        return Record(id=where, turns=turns, form="train_caption" if request else "caption")
