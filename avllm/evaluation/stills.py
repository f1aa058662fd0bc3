"""Small pictures of what a sample shows, as data URLs."""

import base64
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from avllm.errors import AvllmError
from avllm.media import Sampling, open_image, open_video

NUM_STILLS, WIDTH = 4, 160


def stills(row: Mapping[str, Any]) -> list[str]:
    """Up to four of the frames that a row of a log is about; none if its medium is a sound or is not there.

    Args:
        row: with `media`, the part (`start_s`, `end_s`) and `source_fps`.
    """
    media = row.get("media", {})
    kind = next((kind for kind in ("video", "image") if kind in media), None)
    if kind is None or not os.path.exists(media[kind]):
        return []
    try:
        if kind == "image":
            frames = open_image(media[kind]).frames
        else:
            part = {key: row[key] for key in ("start_s", "end_s") if key in row}
            sampling = Sampling(kind="middle", num_frames=NUM_STILLS, **part)
            frames = open_video(media[kind], sampling, source_fps=row.get("source_fps", 24.0)).frames
    except (AvllmError, OSError):  # a report is not the place to fail for a picture
        return []
    return [_data_url(frame) for frame in frames]


def _data_url(frame: np.ndarray) -> str:
    image = Image.fromarray(frame)
    image.thumbnail((WIDTH, WIDTH))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
