"""LLaVA-Instruct-150K: conversations about COCO images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avllm.data.annotated import Annotated
from avllm.data.annotations import entries, member, text
from avllm.data.records import Medium, Record, Turn, media_path
from avllm.errors import DataError

PLACE = "<image>"
ROLES = {"human": "user", "gpt": "assistant"}


class LlavaInstruct(Annotated):
    """Conversations about one image each, or about none.

    Layout: a list of `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`; the place of the
    image is written `<image>` in the first value.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            annotations: the JSON file.
            images: folder of the images.
            ratio: share among the datasets of a stage.
            prefix: put before the name of an image; COCO's 2014 release has its files named so.
            crop: share of the picture that a random cut keeps, see `Medium`.
        """

        annotations: str
        images: str
        ratio: float = 1.0
        prefix: str = "COCO_train2014_"
        crop: tuple[float, float] | None = None

        def build(self, context: object) -> "LlavaInstruct":
            """Reads the annotations.

            Raises:
                DataError: a key is missing, a value is no text, roles do not take turns, or an image has no place.
            """
            return LlavaInstruct(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(config.annotations)

    def record(self, index: int, seed: int) -> Record:
        """The conversation; its image stands before the first question, as published."""
        entry, where = self.entry(index)
        spoken = entries(member(entry, "conversations", where), f"{where}.conversations")
        turns = [self._turn(item, f"{where}.conversations[{i}]") for i, item in enumerate(spoken)]
        places = [turn.text.count(PLACE) for turn in turns]
        has_image = "image" in entry
        if places[0] != int(has_image) or any(places[1:]):
            raise DataError(
                f"{where}.conversations: expected {int(has_image)} {PLACE} in the first value and none elsewhere, "
                f"got {places}"
            )
        if has_image:
            name = self.config.prefix + text(entry, "image", where)
            path = media_path(Path(self.config.images), name, f"{where}.image")
            media = (Medium(kind="image", source=path, crop=self.config.crop),)
            turns[0] = Turn(role=turns[0].role, text=turns[0].text.replace(PLACE, "").strip(), media=media)
        return Record(id=where, turns=tuple(turns))

    def _turn(self, item: Any, where: str) -> Turn:
        role = text(item, "from", where)
        if role not in ROLES:
            raise DataError(f"{where}.from: expected human or gpt, got {role!r}")
        return Turn(role=ROLES[role], text=text(item, "value", where))  # type: ignore[arg-type]
