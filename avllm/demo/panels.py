"""The parts of the page that are drawn here: the file, the examples, and what the model got of it.

Everything that comes from a file or a visitor goes through `html.escape`, and pictures are embedded: no address holds a
name that a visitor chose.
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jaxtyping import Float32

from avllm.demo.evidence import Evidence, Shown, Sound
from avllm.demo.examples import Example
from avllm.demo.reading import Medium
from avllm.demo.uploads import address

_ACCEPT = "video/*,audio/*,image/*,.mkv,.avi,.ogv,.opus,.flac"
_ICONS = {"video": "▶", "audio": "♪", "image": "▣"}
_STREAMS = {"video": "picture", "audio": "sound"}


def header(title: str, note: str) -> str:
    """The heading of the page."""
    return (
        f'<header class="av-head"><span class="av-logo" aria-hidden="true"><i></i><i></i><i></i><i></i></span>'
        f"<div><h1>{escape(title)}</h1><p>{escape(note)}</p></div></header>"
    )


def file_panel(media: Sequence[Medium], *, max_mb: int, kinds: Sequence[str]) -> str:
    """The place to drop a file, or the files that are loaded with a player for the newest."""
    devices = "".join(
        f'<button type="button" class="av-device" data-act="{act}">{label}</button>'
        for act, label, kind in (("camera", "Camera", "video"), ("microphone", "Microphone", "sound"))
        if kind in kinds
    )
    devices = f'<div class="av-devices">{devices}</div>'
    if not media:
        what = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        return (
            f'<label class="av-drop">{_file_input(max_mb)}<span class="av-drop-icon" aria-hidden="true">+</span>'
            f"<b>Add a {what}</b><span>drop it here, or click to choose · up to {max_mb} MB</span></label>{devices}"
        )
    *earlier, newest = media
    lines = "".join(f'<div class="av-file-line av-earlier">{_name_and_facts(medium)}</div>' for medium in earlier)
    return (
        f'<div class="av-file">{_player(newest)}<div class="av-file-line">{_name_and_facts(newest)}'
        f'<label class="av-link">New file{_file_input(max_mb)}</label>'
        f'<button type="button" class="av-link" data-act="remove">Remove{" all" * bool(earlier)}</button></div>'
        f"{lines}</div>{devices}"
    )


def _name_and_facts(medium: Medium) -> str:
    return (
        f'<span class="av-kind">{_ICONS[medium.kind]}</span>'
        f'<span class="av-name" title="{escape(medium.name)}">{escape(medium.name)}</span>'
        f'<span class="av-facts">{escape(medium.facts())}</span>'
    )


def _file_input(max_mb: int) -> str:
    return f'<input type="file" accept="{_ACCEPT}" data-max="{max_mb * 2**20}" aria-label="Choose a file">'


def _player(medium: Medium) -> str:
    source = f"gradio_api/file={quote(address(medium.path))}"
    poster = f' poster="{jpeg(medium.poster)}"' if medium.poster else ""
    if medium.kind == "video":
        return f'<video class="av-player" controls playsinline preload="metadata" src="{source}"{poster}></video>'
    if medium.kind == "audio":
        return f'<audio class="av-sound" controls preload="metadata" src="{source}"></audio>'
    return f'<img class="av-player" alt="the picture that is loaded" src="{jpeg(medium.poster)}">'


def example_cards(examples: Sequence[Example]) -> str:
    """One card per example clip."""
    if not examples:
        return ""
    cards = "".join(
        f'<button type="button" class="av-card" data-index="{index}" title="{escape(example.title)}">'
        f'<img alt="" src="{jpeg(example.poster)}"><span>{escape(example.title)}</span></button>'
        for index, example in enumerate(examples)
    )
    columns = 2 if len(examples) in (1, 2, 4) else 3
    return f'<div class="av-label">Examples</div><div class="av-cards" data-columns="{columns}">{cards}</div>'


def question_chips(questions: Sequence[str]) -> str:
    """Questions to click on."""
    chips = "".join(f'<button type="button" class="av-chip">{escape(question)}</button>' for question in questions)
    return f'<div class="av-chips">{chips}</div>' if chips else ""


def evidence_panel(evidence: Evidence | None) -> str:
    """What the model got for its last answer: frames with their times, sound, streams, timings."""
    if evidence is None:
        return (
            '<section class="av-evidence av-empty"><div class="av-label">What the model got</div><p>After an answer '
            "this shows the frames and the sound that were used, and how long each step took.</p></section>"
        )
    timings = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_milliseconds(seconds)}</dd></div>" for name, seconds in evidence.timings
    )
    media = "".join(_shown(shown, is_named=len(evidence.media) > 1) for shown in evidence.media)
    return (
        f'<section class="av-evidence"><div class="av-label">What the model got</div>{media}'
        f'<dl class="av-timings">{timings}<div><dt>model</dt><dd>{escape(evidence.model)}</dd></div></dl></section>'
    )


def _shown(shown: Shown, *, is_named: bool) -> str:
    """What was taken of one file."""
    name = f'<span class="av-name" title="{escape(shown.name)}">{escape(shown.name)}</span>' if is_named else ""
    streams = "".join(
        f'<span class="av-stream" data-on="{str(is_used).lower()}">{_STREAMS[kind]} · {escape(note)}</span>'
        for kind, is_used, note in shown.streams
    )
    frames = _strip("av-strip", [(f"frame at {_seconds(at)}", picture, _seconds(at)) for at, picture in shown.frames])
    sound = "" if shown.sound is None else _sound(shown.sound)
    return f'<div class="av-evidence-head">{name}{streams}</div>{frames}{sound}'


def _sound(sound: Sound) -> str:
    spans = [f"{start:.1f}-{end:.1f} s" for start, end in sound.segments]
    if len(spans) != len(sound.mels):  # all segments are in one picture
        spans = [f"{len(spans)} segments"] * len(sound.mels)
    mels = [(f"log-mel of {span}", picture, span) for span, picture in zip(spans, sound.mels, strict=True)]
    return _waveform(sound.peaks, sound.seconds, sound.segments) + _strip("av-mels", mels)


def _strip(name: str, pictures: Sequence[tuple[str, bytes, str]]) -> str:
    """Pictures in a row: (what it is, JPEG, what is written below)."""
    figures = "".join(
        f'<figure><img alt="{escape(what)}" src="{jpeg(picture)}"><figcaption>{escape(below)}</figcaption></figure>'
        for what, picture, below in pictures
    )
    return f'<div class="{name}">{figures}</div>' if figures else ""


def _waveform(peaks: Float32[np.ndarray, " n"], duration_s: float, segments: Sequence[tuple[float, float]]) -> str:
    """The loudness over time as bars, with the segments that the model heard marked above them."""
    width, height = 600.0, 56.0
    step = width / max(1, len(peaks))
    tops = np.maximum(peaks / max(float(peaks.max(initial=0.0)), 0.05), 0.02) * (height / 2 - 4)
    bars = "".join(
        f"M{(i + 0.5) * step:.1f} {height / 2 - top:.1f}V{height / 2 + top:.1f}" for i, top in enumerate(tops)
    )
    scale = width / max(duration_s, 1e-6)
    marks = "".join(
        f'<rect x="{start * scale:.1f}" y="0" width="{max(1.0, (end - start) * scale):.1f}" height="{height:.0f}"/>'
        for start, end in segments
    )
    return (
        f'<div class="av-wave"><svg viewBox="0 0 {width:.0f} {height:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="the sound over {duration_s:.1f} seconds"><g class="av-heard">{marks}</g>'
        f'<path d="{bars}" stroke-width="{max(1.0, step * 0.6):.1f}"/></svg>'
        f"<div><span>0 s</span><span>{_seconds(duration_s)}</span></div></div>"
    )


def plain(text: str) -> str:
    """Text that the page shows as it is.

    Gradio's chat takes `<b>` for HTML even without Markdown. An invisible joiner after `<` and `&` makes both mere
    characters to every HTML parser, and unlike `&lt;` it does not show in what is copied from the page.
    """
    return text.replace("<", "<\u2060").replace("&", "&\u2060")


def unplain(text: str) -> str:
    """What `plain` was given, when it comes back from the page."""
    return text.replace("<\u2060", "<").replace("&\u2060", "&")


def jpeg(picture: bytes | None) -> str:
    """A picture as a data: address."""
    return "" if picture is None else "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")


def asset(name: str) -> str:
    """Text of a file that lies beside this one (style, scripts)."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
