"""LLaVA-Instruct-150K: conversations about COCO images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avllm.data.annotated import Annotated
from avllm.data.annotations import entries, member, text
from avllm.data.keys import present, unused
from avllm.data.places import take_tags
from avllm.data.records import Medium, Record, Turn, media_path
from avllm.errors import DataError

ROLES = {"human": "user", "gpt": "assistant"}


class LlavaInstruct(Annotated):
    """Conversations about one image each, or about none.

    Layout: a list of `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`; the place of the
    image is written `<image>` in the first value. Without an image such a tag is a word, as it is in answers.
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
            ignore: see `Conversations`.
        """

        annotations: str
        images: str
        ratio: float = 1.0
        prefix: str = "COCO_train2014_"
        crop: tuple[float, float] | None = None
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "LlavaInstruct":
            """Reads the annotations.

            Raises:
                DataError: a key is missing, a value is no text, roles do not take turns, or an image has no place.
            """
            return LlavaInstruct(self).checked()

    def __init__(self, config: Config) -> None:
        super().__init__(config.annotations)
        self.config = config

    def record(self, index: int, seed: int) -> Record:
        """The conversation; its image stands where the first question has its tag."""
        entry, where = self.entry(index)
        kept = present(entry, where, self.config.ignore)
        spoken = entries(member(entry, "conversations", where), f"{where}.conversations")
        turns = [self._turn(item, f"{where}.conversations[{i}]") for i, item in enumerate(spoken)]
        left = unused(kept, ("image", "conversations"), where)
        if "image" in kept:
            asked = [take_tags(turn.text, ["image"]) for turn in turns if turn.role == "user"]
            places = [len(one.kinds) for one in asked]
            if places[:1] != [1] or any(places[1:]):
                raise DataError(
                    f"{where}.conversations: expected 1 <image> in the first value and none in later questions, "
                    f"got {places}"
                )
            name = self.config.prefix + text(entry, "image", where)
            path = media_path(Path(self.config.images), name, f"{where}.image")
            media = (Medium(kind="image", source=path, crop=self.config.crop),)
            first = next(number for number, turn in enumerate(turns) if turn.role == "user")
            turns[first] = Turn(role="user", text=asked[0].text, media=media, places=asked[0].places)
        return Record(id=where, turns=tuple(turns), remarks=tuple(f"key {key} is not used" for key in left))

    def _turn(self, item: Any, where: str) -> Turn:
        role = text(item, "from", where)
        if role not in ROLES:
            raise DataError(f"{where}.from: expected human or gpt, got {role!r}")
        unused(present(item, where, self.config.ignore), ("from", "value"), where)
        return Turn(role=ROLES[role], text=text(item, "value", where))  # type: ignore[arg-type]
