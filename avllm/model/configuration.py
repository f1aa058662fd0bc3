"""What a system is made of: its YAML as typed data, and the same inside a `transformers` configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

from avllm import config as yaml_config
from avllm.config import Choice
from avllm.connectors import CONNECTORS
from avllm.encoders import ENCODERS
from avllm.errors import ConfigError
from avllm.media import CropOffset, FbankConfig, Resample, Resize, SegmentConfig
from avllm.media.sampling import Kind as FrameChoice
from avllm.model.sizes import check_branch, check_decoder
from avllm.model.untrusted import check_settings, read_settings

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How pictures are read for a branch; an image is a video of one frame.

    Args:
        num_frames: t, frames taken from a video, fewer when it has fewer.
        sampling: which ones; the names are those of `avllm.media.Sampling`.
        fps: frames per second taken, for the sampling that needs it.
        max_frames: upper bound on t for that sampling.
        source_fps: frames per second of a folder or a list of frames, which have no rate of their own.
        size: side in pixels of the square picture that the encoder sees.
        resize: how a picture becomes square: `squash`, `crop` or `pad`.
        resample: how its pixels are computed; the names are those of `avllm.media.fit.Fit`.
        image_resize: of an image, if not as of a video.
        image_resample: likewise.
        image_frames: how often an image is repeated to make a video.
        crop_offset: where a crop begins when an odd number of pixels is cut: `floor` or `round` (to even).
        pad_color: of the bars; `mean` is the pixel that normalisation takes to about 0.
        mean: subtracted from each channel after scaling to [0, 1].
        std: divides each channel.
    """

    num_frames: int = 8
    sampling: FrameChoice = "uniform"
    fps: float | None = None
    max_frames: int | None = None
    source_fps: float = 24.0
    size: int = 224
    resize: Resize = "squash"
    resample: Resample = "decoder"
    image_resize: Resize | None = None
    image_resample: Resample | None = None
    image_frames: int = 1
    crop_offset: CropOffset = "floor"
    pad_color: Literal["black", "mean"] = "black"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of a frame."""
        return 3, self.size, self.size

    def fit_options(self, kind: Literal["image", "video"]) -> dict[str, Any]:
        """How a picture becomes one that the encoder takes, as options of `avllm.media.open_image` and `open_video`."""
        is_image, color = kind == "image", self.mean if self.pad_color == "mean" else (0.0, 0.0, 0.0)
        return {
            "size": (self.size, self.size),
            "resize": (is_image and self.image_resize) or self.resize,
            "resample": (is_image and self.image_resample) or self.resample,
            "crop_offset": self.crop_offset,
            "pad_color": tuple(int(value * 255) for value in color),
        }


# Faults of published code that can be had back; `avllm.model.quirks` says what each does.
Quirk = Literal[
    "vicuna_label_drift",
    "cut_prompt_from_left",
    "cut_long_videos",
    "window_starts_early",
    "learned_role_tags",
    "crop_sounds_at_random",
    "drop_transparency",
]
MEDIA = {"fbank": FbankConfig, "frames": Frames, "segments": SegmentConfig}


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """One modality: how its media are read, its encoder, its connector, and how its slot is written in logs."""

    media: Annotated[Any, Choice(MEDIA)]
    encoder: Annotated[Any, Choice(ENCODERS)]
    connector: Annotated[Any, Choice(CONNECTORS)]
    slot: str = "<ImageHere>"

    def num_tokens(self, shape: Sequence[int]) -> int:
        """m, slots that a medium of shape (t, c, h, w) takes in the prompt."""
        return self.connector.num_tokens(*self.encoder.token_shape(shape))

    @property
    def max_frames(self) -> int | None:
        """Most frames or segments that the parts have places for; None when no part says a `max_frames`."""
        limits = [getattr(part, "max_frames", None) for part in (self.encoder, self.connector)]
        return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where the published weights of a system come from: its table of names, and the repository if there is one."""

    table: str
    repo: str | None = None


@dataclass(frozen=True, kw_only=True)
class System:
    """A composition: one YAML of `configs/`.

    Args:
        decoder: a causal language model of `transformers`, as its configuration with `model_type`.
        prompt: a row of `avllm.model.prompts.PROMPTS`.
        branches: modality -> branch.
        weights: the published weights, if there are any.
        published_quirks: faults of the published code that are wanted back, by name.
    """

    decoder: dict[str, Any]
    prompt: str
    branches: dict[Literal["video", "audio"], BranchConfig]
    weights: Weights | None = None
    published_quirks: tuple[Quirk, ...] = ()

    def __post_init__(self) -> None:
        kind = _decoder_kind(self.decoder)
        check_settings(self.decoder, "decoder")
        odd = next((str(key) for key in self.decoder if key not in _decoder_keys(kind)), None)
        if odd is not None:
            raise ConfigError(f"decoder.{odd}: unknown key of {kind}{yaml_config.nearest(odd, _decoder_keys(kind))}")
        check_decoder(self.decoder, "decoder")
        for name, branch in self.branches.items():
            check_branch(branch, f"branches.{name}")
        if "vicuna_label_drift" in self.published_quirks and self.prompt != "vicuna":
            raise ConfigError(f"published_quirks: vicuna_label_drift is a fault of prompt vicuna, not {self.prompt}")
        if "learned_role_tags" in self.published_quirks and self.prompt != "videochat":
            raise ConfigError(f"published_quirks: learned_role_tags is a fault of prompt videochat, not {self.prompt}")

    @classmethod
    def from_yaml(cls, name: str | Path, overrides: tuple[str, ...] = ()) -> "System":
        """Reads `configs/<name>.yaml` or a path.

        Raises:
            ConfigError: no such file, or a wrong key, type or choice in it.
        """
        return yaml_config.load(cls, yaml_config.find_file("configs", name), overrides)


class AvllmConfig(PreTrainedConfig):
    """A `System` inside a `transformers` configuration, as nested plain data.

    Args:
        text_config: configuration of the decoder, or its plain data with `model_type`.
        system: the rest of the system's YAML as plain data.
    """

    model_type = "avllm"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    def __init__(
        self, text_config: PreTrainedConfig | dict[str, Any] | None = None, system: dict[str, Any] | None = None, **rest
    ) -> None:
        if isinstance(text_config, dict):
            text_config = _decoder_config(text_config)
        self.text_config = text_config if text_config is not None else CONFIG_MAPPING["llama"]()
        self.system = system or {"prompt": "llama2", "branches": {}}
        rest.setdefault("tie_word_embeddings", getattr(self.text_config, "tie_word_embeddings", False))
        super().__init__(**rest)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """As in `transformers`, up to the size that a config.json can have. Raises CheckpointError."""
        read_settings(Path(pretrained_model_name_or_path) / "config.json")
        return super().get_config_dict(pretrained_model_name_or_path, **options)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """As in `transformers`, from what a config.json holds; of its keys, those of avllm alone are obeyed.

        Raises:
            CheckpointError: it asks for code, a kernel or files of another place.
            ConfigError: a key is missing, or a value is of another type or size than it can have.
        """
        check_settings(config_dict, "config.json")
        kind, text, system = (config_dict.get(key) for key in ("model_type", "text_config", "system"))
        if kind != cls.model_type or not isinstance(text, dict) or not isinstance(system, dict):
            raise ConfigError(
                f"config.json: expected model_type {cls.model_type} with text_config and system, as avllm convert "
                f"writes them; it is of {kind!r}"
            )
        if type(config_dict.get("tie_word_embeddings", False)) is not bool:
            raise ConfigError("config.json: tie_word_embeddings: expected true or false")
        check_decoder(
            {key: config_dict.get(key) for key in ("dtype", "torch_dtype") if key in config_dict}, "config.json"
        )
        return super().from_dict({key: config_dict[key] for key in _OBEYED if key in config_dict}, **options)

    @classmethod
    def from_system(cls, system: System) -> "AvllmConfig":
        """Wraps what a YAML holds."""
        plain = yaml_config.to_plain(system)
        return cls(text_config=plain.pop("decoder"), system=plain)

    @classmethod
    def from_yaml(cls, name: str | Path, overrides: tuple[str, ...] = ()) -> "AvllmConfig":
        """Reads `configs/<name>.yaml` or a path."""
        return cls.from_system(System.from_yaml(name, overrides))

    def parsed(self) -> System:
        """The system as typed data.

        Raises:
            ConfigError: the stored data does not describe a system; the key is named.
        """
        decoder = {"model_type": self.text_config.model_type}
        return yaml_config.parse(System, {**self.system, "decoder": decoder}, "config.json: system")

    def slot_ids(self) -> dict[str, int]:
        """Modality -> id of its slots."""
        return slot_ids(self.system["branches"], self.text_config.vocab_size)


def slot_ids(branches: Iterable[str], vocab_size: int) -> dict[str, int]:
    """Modality -> id of its slots; they follow the decoder's vocabulary and are never embedded.

    By alphabet, as the order of keys in a saved configuration is not kept.
    """
    return {name: vocab_size + index for index, name in enumerate(sorted(branches))}


# Of a config.json; what else stands there has no meaning for avllm.
_OBEYED = (
    *("architectures", "dtype", "torch_dtype", "quantization_config", "system", "text_config", "tie_word_embeddings"),
    "transformers_version",
)


def _decoder_kind(plain: Mapping[str, Any]) -> str:
    kind = plain.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"decoder.model_type: {kind!r} is no model of transformers; expected for example llama, mistral or qwen2"
        )
    return kind


def _decoder_keys(kind: str) -> set[str]:
    return {field.name for field in fields(CONFIG_MAPPING[kind])} | {"model_type", "rope_theta", "rope_scaling"}


def _decoder_config(plain: dict[str, Any]) -> PreTrainedConfig:
    """The decoder's configuration; keys that it has not are left out, as those of other versions of transformers are.

    Raises:
        ConfigError: a value is of another type or size than it can have.
    """
    kind = _decoder_kind(plain)
    check_decoder(plain, "decoder")
    known = _decoder_keys(kind) - {"model_type"}
    try:
        return CONFIG_MAPPING[kind](**{key: value for key, value in plain.items() if key in known})
    except (StrictDataclassError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"decoder: no sizes of a {kind} ({' '.join(str(error).split())})") from error
