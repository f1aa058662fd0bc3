"""The system that a case of the form `model` describes, with its weights from `model_weights` beside it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from avllm import config
from avllm.checkpoints import rename, video_llama
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Loaded, System
from avllm.model.prompts import Medium

FILES = {
    "eva_vit_g": "weights_eva_vit_g.safetensors",
    "blip2": "weights_blip2.safetensors",
    "vl": "weights_vl_checkpoint.safetensors",
    "imagebind_huge": "weights_imagebind_huge.safetensors",
    "al": "weights_al_checkpoint.safetensors",
    "llama": "llama/model.safetensors",
}
PROMPTS = {"vicuna": "vicuna", "llama_v2": "llama2"}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def system_of(case: dict[str, Any], weights: Path, prompt: str) -> System:
    """The case's configuration as a system of ours."""
    bert, vit, sounds = case["bert"], case["vit"], case["imagebind"]["ctor"]
    with_shapes = load_file(weights / FILES["imagebind_huge"])
    pictures = with_shapes["modality_preprocessors.vision.rgbt_stem.proj.1.weight"].shape
    stem = with_shapes["modality_preprocessors.audio.rgbt_stem.proj.weight"].shape
    sizes = {
        "width": bert["hidden_size"],
        "num_heads": bert["num_attention_heads"],
        "mlp_width": bert["intermediate_size"],
    }
    decoder = read_json(weights / "llama/config.json")
    outside = {"architectures", "torch_dtype", "transformers_version", "use_cache"}
    plain = {
        "decoder": {key: value for key, value in decoder.items() if key not in outside},
        "prompt": prompt,
        # The case stores what the published masks gave; ours are right without this.
        "published_quirks": ["vicuna_label_drift"] if prompt == "vicuna" else [],
        "branches": {
            "video": {
                "media": {"kind": "frames", "num_frames": case["frames"], "size": case["image_size"]},
                "encoder": {
                    "kind": "eva_clip",
                    "image_size": vit["ckpt_img_size"],
                    "patch_size": vit["patch_size"],
                    "width": vit["embed_dim"],
                    "depth": vit["depth"],
                    "num_heads": vit["num_heads"],
                    "mlp_ratio": vit["mlp_ratio"],
                },
                "connector": {
                    "kind": "temporal_qformer",
                    "num_queries": case["num_video_query_token"],
                    "max_frames": case["max_frame_pos"],
                    "depth": case["video_qformer"]["num_hidden_layers"],
                    **sizes,
                    "frame_qformer": {
                        "num_queries": case["num_query_token"],
                        "depth": case["image_qformer"]["num_hidden_layers"],
                        "cross_every": case["image_qformer"]["cross_attention_freq"],
                        **sizes,
                    },
                },
            },
            "audio": {
                "media": {
                    "kind": "segments",
                    "num_segments": case["audio_clips"],
                    "num_mel_bins": sounds["audio_num_mel_bins"],
                    "num_frames": sounds["audio_target_len"],
                },
                "encoder": {
                    "kind": "imagebind",
                    "width": sounds["out_embed_dim"],
                    "vision": {
                        "image_size": case["imagebind"]["vision_img_size"],
                        "patch_size": pictures[-1],
                        "clip_frames": pictures[2],
                        "width": sounds["vision_embed_dim"],
                        "depth": sounds["vision_num_blocks"],
                        "num_heads": sounds["vision_num_heads"],
                    },
                    "audio": {
                        "num_mel_bins": sounds["audio_num_mel_bins"],
                        "num_frames": sounds["audio_target_len"],
                        "kernel_size": stem[-1],
                        "stride": sounds.get("audio_stride", 10),
                        "width": sounds["audio_embed_dim"],
                        "depth": sounds["audio_num_blocks"],
                        "num_heads": sounds["audio_num_heads"],
                    },
                },
                "connector": {
                    "kind": "temporal_qformer",
                    "num_queries": case["num_audio_query_token"],
                    "max_frames": case["audio_position_embedding_size"],
                    "depth": case["audio_qformer"]["num_hidden_layers"],
                    **sizes,
                },
            },
        },
    }
    return config.parse(System, plain, "case")


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
        weights, settings = folder.parent / "model_weights", read_json(folder / "config.json")
        system = system_of(settings, weights, "vicuna")
        model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
        tables = video_llama.tables(depth=settings["vit"]["depth"], trunks=("vision", "audio"))
        renamed = {
            name: rename.rename(load_file(weights / file), tables[name], source=file) for name, file in FILES.items()
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
            training_texts=read_json(folder.parent / "prompts" / "prompts.json")["training"],
            inputs=load_file(folder / "inputs.safetensors"),
            outputs=load_file(folder / "outputs.safetensors"),
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
