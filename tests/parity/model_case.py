"""The system that a case of the form `model` describes, with its weights from `model_weights` beside it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoTokenizer

from avllm.checkpoints import rename, video_llama
from avllm.media import SegmentConfig
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Loaded, Medium, System
from avllm.model.configuration import BranchConfig, Frames
from tests.parity import parts
from tests.parity.common import read_json, read_tensors

FILES = {
    "eva_vit_g": "weights_eva_vit_g.safetensors",
    "blip2": "weights_blip2.safetensors",
    "vl": "weights_vl_checkpoint.safetensors",
    "imagebind_huge": "weights_imagebind_huge.safetensors",
    "al": "weights_al_checkpoint.safetensors",
    "llama": "llama/model.safetensors",
}
PROMPTS = {"vicuna": "vicuna", "llama_v2": "llama2"}


def beside(folder: Path, name: str) -> Path:
    """The folder `name` that belongs to a case, which may be called `model` or begin or end with it."""
    swapped = folder.with_name(folder.name.replace("model", name))
    found = next((path for path in (swapped, folder.parent / name) if path.is_dir() and path != folder), None)
    if found is None:
        raise FileNotFoundError(f"{folder}: expected the folder {name} beside it")
    return found


def system_of(case: dict[str, Any], weights: Path, prompt: str) -> System:
    """The case's configuration as a system of ours."""
    outside = {"architectures", "torch_dtype", "transformers_version", "use_cache"}
    decoder = read_json(weights / "llama/config.json")
    frames = Frames(num_frames=case["frames"], size=case["image_size"])
    imagebind = parts.imagebind(case["imagebind"], has_text=False)
    assert imagebind.audio is not None
    mel = {"num_mel_bins": imagebind.audio.num_mel_bins, "num_frames": imagebind.audio.num_frames}
    segments = SegmentConfig(num_segments=case["audio_clips"], **mel)
    return System(
        decoder={key: value for key, value in decoder.items() if key not in outside},
        prompt=prompt,
        # The case stores what the published masks gave; ours are right without this.
        published_quirks=("vicuna_label_drift",) if prompt == "vicuna" else (),
        branches={
            "video": BranchConfig(
                media=frames, encoder=parts.eva_clip(case["vit"]), connector=parts.video_connector(case)
            ),
            "audio": BranchConfig(media=segments, encoder=imagebind, connector=parts.audio_connector(case)),
        },
    )


@dataclass
class Case:
    """The built model and everything the case stores."""

    folder: Path
    settings: dict[str, Any]
    cases: dict[str, Any]
    training_texts: dict[str, str]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    model: AvllmForConditionalGeneration
    processors: dict[str, AvllmProcessor]
    published: dict[str, str]

    @classmethod
    def open(cls, folder: Path) -> "Case":
        """Reads the case and loads its weights through the name tables.

        Raises:
            CheckpointError: a weight is missing, left over or of another shape.
        """
        weights, settings = beside(folder, "model_weights"), read_json(folder / "config.json")
        system = system_of(settings, weights, "vicuna")
        model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
        tables = video_llama.tables(system)
        renamed = {
            name: rename.rename(read_tensors(weights / file), tables[name], source=file) for name, file in FILES.items()
        }
        rename.load(model, rename.join(*renamed.values()))
        tokenizer = AutoTokenizer.from_pretrained(weights / "llama")
        processors = {
            kind: AvllmProcessor.from_config(AvllmConfig.from_system(system_of(settings, weights, prompt)), tokenizer)
            for kind, prompt in PROMPTS.items()
        }
        return cls(
            folder=folder,
            settings=settings,
            cases=read_json(folder / "cases.json"),
            training_texts=read_json(beside(folder, "prompts") / "prompts.json")["training"],
            inputs=read_tensors(folder / "inputs.safetensors"),
            outputs=read_tensors(folder / "outputs.safetensors"),
            model=model,
            processors=processors,
            published={ours: names[0] for ours, names in renamed["vl"].origin.items()},
        )

    @property
    def times_s(self) -> tuple[float, ...]:
        """Times that the case's message tells."""
        return times_in(self.settings["chat_message"])

    def medium(self, kind: Any, branch: str, values: Tensor) -> Medium:
        """A prompt's view of media of the case."""
        loaded = Loaded(kind=kind, branch=branch, values=values, times_s=self.times_s if kind == "video" else ())
        return self.processors["vicuna"].medium(loaded)


def times_in(message: str) -> tuple[float, ...]:
    """The seconds in a time message."""
    return tuple(map(float, re.findall(r"\d+\.\d+", message)))
