"""A page of HTML with some samples as the model gets them: pictures, prompt, ids, and what of them is learned."""

import base64
import html
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from avllm.data.collate import IGNORED, Sample
from avllm.data.context import Context
from avllm.data.prepare import Prepare
from avllm.data.records import DatasetConfig
from avllm.durable import write_whole
from avllm.errors import DataError, named_fault, own_message

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
section{border-top:1px solid #d5dce4;padding:1rem 0}img{height:96px;margin:2px;border-radius:4px}
pre{white-space:pre-wrap;background:#f4f6f8;padding:.7rem;border-radius:6px}.learned{background:#bfe6c3}
.slot{background:#d7e3f4;border-radius:4px;padding:0 .3em}table{border-collapse:collapse;font-size:13px}
td{border:1px solid #d5dce4;padding:0 .4em}.fault{color:#a12622}
"""


def preview(
    data: Sequence[DatasetConfig],
    processor: Any,
    page: Path,
    *,
    num_samples: int = 8,
    context: Context | None = None,
    max_text_tokens: int | None = None,
) -> int:
    """Writes the page; everything in it is inside the one file.

    Args:
        data: datasets.
        processor: of the system that is to be trained.
        page: the file that is written.
        num_samples: how many of each, spread evenly over it.
        context: of the stage.
        max_text_tokens: as of the stage.

    Returns:
        How many samples are on it.

    Raises:
        DataError: the file is missing, or an entry in it is wrong.
    """
    context = context or Context(processor=processor)
    sources = [config.build(context) for config in data]
    prepare = Prepare(processor, modality=context.modality, max_text_tokens=max_text_tokens)
    parts = []
    counts = [min(num_samples, len(source)) for source in sources]
    places = [
        (source, number * len(source) // count)
        for source, count in zip(sources, counts, strict=True)
        for number in range(count)
    ]
    for source, index in places:
        title = ""
        try:
            record = source.record(index, 0)
            title = f"<h2>{html.escape(record.id)}</h2>"
            parts.append(f"<section>{title}{_sample(prepare(record, 0), processor)}</section>")
        except DataError:
            raise
        except Exception as error:
            told = html.escape(own_message(named_fault(error)))
            parts.append(f'<section>{title}<p class="fault">{told}</p></section>')
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Samples</title>'
    legend = '<p>Green: learned. <span class="slot">Blue</span>: places that the media fill.</p>'
    write_whole(page, f"{head}<style>{STYLE}</style><body>{legend}{''.join(parts)}</body></html>\n")
    return len(parts)


def _sample(sample: Sample, processor: Any) -> str:
    shown = "".join(_clip(clip, name, processor) for name, clips in sample.media.items() for clip in clips)
    ids, labels = sample.input_ids.tolist(), sample.labels.tolist()
    slots = {number: name for name, number in processor.slot_ids.items()}
    text, rows = [], []
    for (slot, learned), run in groupby(zip(ids, labels, strict=True), lambda p: (slots.get(p[0]), p[1] != IGNORED)):
        numbers = [number for number, _ in run]
        if slot is not None:
            text.append(f'<span class="slot">{html.escape(slot)} × {len(numbers)}</span>')
            rows.append((f"{slot} × {len(numbers)}", str(numbers[0]), ""))
            continue
        said = html.escape(processor.tokenizer.decode(numbers))
        text.append(f'<span class="learned">{said}</span>' if learned else said)
        tokens = processor.tokenizer.convert_ids_to_tokens(numbers)
        rows += [
            (token, str(number), "learned" if learned else "") for token, number in zip(tokens, numbers, strict=True)
        ]
    table = "".join(
        f'<tr class="{mark}"><td>{html.escape(token)}</td><td>{number}</td><td>{mark}</td></tr>'
        for token, number, mark in rows
    )
    num_learned = sum(label != IGNORED for label in labels)
    return (
        f"{shown}<pre>{''.join(text)}</pre><details><summary>{len(ids)} ids, {num_learned} learned</summary>"
        f"<table>{table}</table></details>"
    )


def _clip(clip: Tensor, branch: str, processor: Any) -> str:
    settings = processor.branches[branch].media
    if clip.ndim != 4 or clip.shape[1] != 3:
        return f"<p>{html.escape(branch)}: {' × '.join(map(str, clip.shape))} values of sound</p>"
    mean, std = (rearrange(torch.tensor(value), "c -> 1 c 1 1") for value in (settings.mean, settings.std))
    pixels = ((clip * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return f"<div>{''.join(_image(frame) for frame in rearrange(pixels, 't c h w -> t h w c'))}</div>"


def _image(pixels: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
