"""Systems of random weights at a size where the decoder and the encoder both take time on a CPU.

Vision 384 x 12 layers at 224/14, LLaMA 512 x 8 layers with a vocabulary of 32,064, 8 frames: a Video-LLaVA with 2,056
tokens for a video, the same weights in the class of `transformers`, and a Video-LLaMA with 32.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from avllm.checkpoints import rename
from avllm.checkpoints.save import save_model
from avllm.checkpoints.video_llava import tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Medium, System, Turn
from avllm.model.prompts import PROMPTS, Text, conversation

VOCAB = 32064
WIDTH, DEPTH, HEADS = 384, 12, 6
DECODER: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}
TOWER: dict[str, int] = {"width": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_width": 4 * WIDTH}
# Other words are tokenised byte by byte.
WORDS = (
    " ".join(f"{number:02d}" for number in range(100))
    + " what is which? which of the two things is the first that moves, and where does it go then? and here? hm why?"
    " does the sound match the picture, or is it that of another thing? is it red? how many are there, and of which"
    " colours are they?"
)
QFORMER = {"width": WIDTH, "num_heads": HEADS, "mlp_width": 4 * WIDTH}


def peer() -> VideoLlavaForConditionalGeneration:
    """The Video-LLaVA of `transformers` with random weights, fp32, its attention by SDPA."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=224,
        patch_size=14,
    )
    # Weights five times as large as usual: choices are clear, so that equal answers mean something.
    text = LlamaConfig(**DECODER, initializer_range=0.1)
    config = VideoLlavaConfig(vision_config=vision, text_config=text)
    model = VideoLlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    return model


def save_llava(theirs: VideoLlavaForConditionalGeneration, folder: Path) -> Path:
    """The same weights as a model folder of ours."""
    towers = [
        f"branches.video.encoder.{tower}.{key}={value}" for tower in ("image", "video") for key, value in TOWER.items()
    ]
    system = System.from_yaml("video_llava_7b_hf", (*_decoder_overrides(), *towers))
    theirs.save_pretrained(folder / "theirs")
    weights = _read(folder / "theirs")
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    rename.load(model, rename.rename(weights, tables(system)["hf"], source="transformers"))
    return _save(model, folder / "llava")


def save_llama(folder: Path) -> Path:
    """A Video-LLaMA with both branches as a model folder."""
    branch = {f"connector.{key}": value for key, value in QFORMER.items()}
    frame = {f"connector.frame_qformer.{key}": value for key, value in QFORMER.items()}
    trunk = {"width": WIDTH, "depth": 4, "num_heads": HEADS}
    sizes = {
        "video": {**branch, **frame, "encoder.width": WIDTH, "encoder.depth": DEPTH, "encoder.num_heads": HEADS},
        "audio": {**branch, **{f"encoder.{part}.{k}": v for part in ("audio", "vision") for k, v in trunk.items()}},
    }
    options = [f"branches.{name}.{key}={value}" for name, keys in sizes.items() for key, value in keys.items()]
    torch.manual_seed(1)
    config = AvllmConfig.from_yaml("video_llama_7b", (*_decoder_overrides(), *options))
    model = AvllmForConditionalGeneration(config).eval()
    for parameter in model.decoder.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.1)
    return _save(model, folder / "llama")


def tokenizer(system: System) -> Any:
    """Words of the prompt form and of `WORDS`, bytes, and a word of its own for every other id.

    So a prompt has about as many tokens as with a published tokenizer, and equal texts mean equal ids.
    """
    special = ["<unk>", "<s>", "</s>"]
    split = pre_tokenizers.Split(Regex(r"w\d+\.| ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+"), "isolated")
    scheme = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    kinds = ("video", "audio") if "audio" in system.branches else ("video",)
    media = [Medium(kind=kind, branch=kind, num_tokens=1) for kind in kinds]
    groups = [(), media, *([medium] for medium in media), [Medium(kind="image", branch="video", num_tokens=1)]]
    turns = [Turn(question=WORDS, answer=WORDS, media=tuple(group)) for group in groups]
    form = PROMPTS[system.prompt].chat
    parts = conversation(form, turns)
    texts = [form.system, *(part.text for part in parts if isinstance(part, Text))]
    words = {word for text in texts for word, _ in scheme.pre_tokenize_str(text)}
    known = [*special, *sorted({*pre_tokenizers.ByteLevel.alphabet(), *words})]
    known += [f"w{index}." for index in range(VOCAB - len(known))]
    # ignore_merges: what is a word is not taken apart
    vocabulary = {token: index for index, token in enumerate(known)}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    fast.pre_tokenizer = scheme
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(special)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=fast, **names)


def _decoder_overrides() -> list[str]:
    return [f"decoder.{key}={value}" for key, value in DECODER.items()]


def _read(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _save(model: AvllmForConditionalGeneration, folder: Path) -> Path:
    config = model.config
    assert isinstance(config, AvllmConfig)
    return save_model(model, AvllmProcessor.from_config(config, tokenizer(config.parsed())), folder)
