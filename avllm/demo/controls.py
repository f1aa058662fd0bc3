"""The settings on the page: what is used of a file, and how an answer is written."""

from pathlib import Path
from typing import Any

import gradio as gr

from avllm.demo.config import DemoConfig

_STREAMS = [("Auto", "auto"), ("Require sound", "require"), ("Picture only", "off"), ("Sound only", "only")]
_NEW_MEDIA = [("starts a new chat", "reset"), ("joins the chat", "add")]


def new_media(config: DemoConfig) -> gr.Radio:
    """What becomes of the chat when a file is added."""
    return gr.Radio(_NEW_MEDIA, value=config.page.new_media, label="A new file", elem_id="av-new-media")


class Controls:
    """Builds the settings in the open Gradio block.

    Args:
        config: of the demo.
        num_frames: how many the first model looks at.
    """

    def __init__(self, config: DemoConfig, num_frames: int) -> None:
        names = list(dict.fromkeys((config.model, *config.models)))
        hears = "audio" in config.media.branches
        with gr.Group(elem_id="av-settings"):
            self.model = gr.Dropdown(
                [(Path(name).name, name) for name in names],
                value=config.model,
                label="Model",
                elem_id="av-model",
                filterable=False,
                visible=len(names) > 1,
            )
            self.streams = gr.Radio(_STREAMS, value=config.media.audio, label="Use", elem_id="av-audio", visible=hears)
            with gr.Accordion("More settings", open=False, elem_id="av-more"):
                self._build_more(config, num_frames)

    def _build_more(self, config: DemoConfig, num_frames: int) -> None:
        generation, most = config.generation, config.media.max_frames
        self.frames = gr.Slider(
            1, most or 64, value=num_frames, step=1, label="Frames", elem_id="av-frames", visible=most is not None
        )
        self.temperature = gr.Slider(
            0.0,
            2.0,
            value=generation.temperature,
            step=0.1,
            label="Temperature (0: always the same answer)",
            elem_id="av-temperature",
        )
        self.top_p = gr.Slider(
            0.05,
            1.0,
            value=generation.top_p,
            step=0.05,
            label="Top-p (from temperature 0.1 on)",
            elem_id="av-top-p",
        )
        # A field for numbers cannot be left empty.
        self.seed = gr.Textbox(
            "" if generation.seed is None else str(generation.seed),
            label="Seed (empty: another draw each time)",
            max_lines=1,
            max_length=10,
            elem_id="av-seed",
        )
        self.num_beams = gr.Slider(
            1,
            max(2, generation.max_beams),
            value=generation.num_beams,
            step=1,
            label="Beams (above 1 the answer comes whole)",
            elem_id="av-beams",
            visible=generation.max_beams > 1,
        )
        self.max_new_tokens = gr.Slider(
            1,
            generation.max_new_tokens_limit,
            value=generation.max_new_tokens,
            step=1,
            label="Longest answer, tokens",
            elem_id="av-max-tokens",
        )
        self.system = gr.Textbox(
            config.system,
            label="System prompt (empty: the model's own)",
            lines=2,
            max_lines=6,
            max_length=config.page.max_system_chars,
            elem_id="av-system",
        )

    def inputs(self) -> dict[str, Any]:
        """The parts of the page by the fields of `Settings` that they set."""
        return {
            "model": self.model,
            "streams": self.streams,
            "frames": self.frames,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "system": self.system,
        }
