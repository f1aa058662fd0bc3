"""WebVid: a folder of CSV files, videos in folders beside it."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avllm.data.captions import clean_caption
from avllm.data.keys import unused
from avllm.data.packed import PackedTexts
from avllm.data.records import Medium, Record, Turn, media_path
from avllm.errors import DataError

COLUMNS = ("videoid", "page_dir", "name")
UNUSED = ("contentUrl", "page_idx")  # of the published files, beside the duration
SEPARATOR = "\x00"  # in no file name and no caption


class WebVid:
    """Videos with a caption each.

    Layout: CSV files with the columns `videoid`, `page_dir`, `name` (the caption); the video of a row is
    `<videos>/<page_dir>/<videoid>.mp4`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            annotations: a CSV file or a folder of them.
            videos: folder of the videos.
            ratio: share among the datasets of a stage.
            sampling: which frames, as named by `avllm.media.Sampling`; None is the system's setting.
            num_frames: how many; None is the system's setting.
            crop: share of the picture that a random cut keeps, see `Medium`.
            clean: clean the captions as published.
            max_words: of a cleaned caption.
            ignore: columns that are left out, see `Conversations`.
        """

        annotations: str
        videos: str
        ratio: float = 1.0
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None
        clean: bool = True
        max_words: int = 50
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "WebVid":
            """Reads the annotations.

            Raises:
                DataError: a file, column or value is missing, or a column is not known; file and line are named.
            """
            return WebVid(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        folder = Path(config.annotations)
        self.files = sorted(folder.glob("*.csv")) if folder.is_dir() else [folder]
        if not self.files:
            raise DataError(f"{folder}: holds no CSV file; expected WebVid's annotations there")
        self._rows = PackedTexts(row for number in range(len(self.files)) for row in self._read(number))

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int, seed: int) -> Record:
        """The video and its caption."""
        number, line, videoid, page_dir, name = self._rows[index].split(SEPARATOR)
        where = f"{self.files[int(number)]}:{line}"
        path = media_path(Path(self.config.videos), f"{page_dir}/{videoid}.mp4", where)
        caption = clean_caption(name, max_words=self.config.max_words) if self.config.clean else name
        options = {"sampling": self.config.sampling, "num_frames": self.config.num_frames}
        media = (Medium(kind="video", source=path, options=options, crop=self.config.crop),)
        turns = (Turn(role="user", text="", media=media), Turn(role="assistant", text=caption))
        return Record(id=where, turns=turns, form="caption")

    def _read(self, number: int) -> Iterator[str]:
        path = self.files[number]
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:  # millions of rows: read one by one
                reader = csv.DictReader(file)
                missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
                if missing:
                    raise DataError(f"{path}:1: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
                columns = {name: name for name in reader.fieldnames or () if name}
                unused(columns, (*COLUMNS, *UNUSED, *self.config.ignore), f"{path}:1")
                for row in reader:
                    for name in COLUMNS:
                        if not (row[name] or "").strip():
                            raise DataError(f"{path}:{reader.line_num}: {name} is empty; expected a text")
                    values = (row[name] for name in COLUMNS)
                    yield SEPARATOR.join((str(number), str(reader.line_num), *values))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as CSV: {error}") from error
