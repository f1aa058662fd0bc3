"""A training stage as typed data: one YAML of `train_configs/`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from avllm import config
from avllm.config import Choice
from avllm.errors import ConfigError
from avllm.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW; biases and norms (parameters of fewer than two axes) have no weight decay.

    Args:
        weight_decay: of all other trainable parameters.
        betas: decay of the two running means.
        eps: added to the denominator.
        clip_norm: longest gradient, by norm over all parameters; None leaves it as it is, as published.
        part_lr: part or pattern, as in `trainable` -> its highest rate in place of the schedule's, which it follows in
            proportion; the first that names a parameter counts.
    """

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = None
    part_lr: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (0 <= self.weight_decay < math.inf and 0 <= self.eps < math.inf):
            raise ValueError(f"expected weight_decay and eps of 0 or more, got {self.weight_decay} and {self.eps}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two from 0 to below 1, got {list(self.betas)}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(f"clip_norm: expected a norm above 0, or null to clip nothing, got {self.clip_norm}")
        for name, rate in self.part_lr.items():
            if not 0 < rate < math.inf:
                raise ValueError(f"part_lr.{name}: expected a rate above 0, got {rate}")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Trains the decoder through pairs of small matrices beside its linear layers, which stay as they are.

    Source: LoRA (arXiv:2106.09685).

    Args:
        kind: of adapter.
        r: rank of the pairs.
        alpha: the pair's product is scaled by alpha / r.
        dropout: of what the pairs are fed.
        target: last names of linear layers of the decoder, as `q_proj`; none: all of them but the head.
    """

    kind: Literal["lora"] = "lora"
    r: int = 128
    alpha: float = 256.0
    dropout: float = 0.05
    target: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"r: expected 1 or more, got {self.r}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha: expected a number above 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share from 0 to below 1, got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the state of a run is stored, so that `--resume` goes on from there.

    Args:
        every: steps between two of them; the last step and Ctrl-C store one as well. 0 stores none on the way.
        keep: how many of the newest stay on disk.
        best: with `held_out`, also store and keep the step of the lowest loss there, and end with its weights; off, the
            run ends with the weights of its last step.
    """

    every: int = 500
    keep: int = 2
    best: bool = True

    def __post_init__(self) -> None:
        if self.every < 0 or self.keep < 1:
            raise ValueError(f"expected every >= 0 and keep >= 1, got {self.every} and {self.keep}")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Samples that are never trained on; the loss on them tells when to stop and which step was best.

    The loss is the mean over all learned tokens of these samples, in eval mode, on the same frames each time.

    Args:
        data: datasets, as of the stage.
        every: steps between two looks; the last step is looked at as well.
        samples: how many are drawn of all, once; None takes them all.
        patience: looks in a row without a lower loss that end the run early; None never does.
        min_delta: how much lower counts as lower.
    """

    data: tuple[Any, ...]
    every: int = 500
    samples: int | None = 512
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: expected at least one entry, got none")
        for name in ("every", "samples", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        if self.min_delta < 0:
            raise ValueError(f"min_delta: expected 0 or more, got {self.min_delta}")


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What a run reports.

    Args:
        every: steps between two rows of `log.csv`.
        tensorboard: also write TensorBoard's files, if it is installed.
        wandb: also report to Weights & Biases, as the account on this machine is set up; the package must be installed.
    """

    every: int = 10
    tensorboard: bool = True
    wandb: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every: expected 1 or more, got {self.every}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    Args:
        init: name or folder of the system to start from, then folders of stages whose trained parts go over it.
        trainable: names of parameters, as a whole (`branches.video.connector.projection` means all below it) or with
            `*`. All else is frozen, in eval mode and without gradients.
        adapter: trains the decoder by LoRA beside `trainable`; the output is then an adapter folder.
        quantization: holds the decoder's frozen linear layers in 4 bits; with an adapter alone (QLoRA).
        output: folder of the run; at its end it is a complete model, or an adapter that names its base.
        data: the datasets; each has a `kind`, its options, and a `ratio` among the others.
        held_out: samples that are not trained on, for the best step and an early stop.
        schedule: steps and learning rate.
        optimizer: AdamW's settings.
        modality: branch -> what it is fed; `{audio: vision}` trains the branch of sound on pictures.
        features: folder of `avllm features`, which stands in for the media of its branches.
        mix: take each batch from one dataset, as published, or each sample from any.
        group_by: put samples of the same kinds of media and of similar length into one batch, so that little is padded.
        batch: samples per process and step (with `accumulation`, per part of a step).
        accumulation: batches whose gradients make one step.
        accumulation_mean: over what the loss of a step is the mean. tokens: over all learned tokens of its batches and
            processes, so that 2 x 4 samples make the step that 8 x 1 make. micro_batch: over the means of its batches
            and processes, as the published systems train, where short answers weigh more.
        max_text_tokens: longest text of a sample; None is without limit.
        max_unreadable: highest share of samples whose media cannot be read; more stops the run.
        workers: processes that read data; 0 reads between the steps.
        trusted_media: decode media in the processes that read data, and not in others that a file can do less harm in.
        distributed: what several processes (torchrun) hold: each the whole model (ddp), or each a share of every layer
            of the decoder and of its optimizer state (fsdp).
        precision: bf16 and fp16 by autocast; trained weights stay fp32.
        gradient_checkpointing: compute activations of the decoder twice in place of storing them.
        seed: of order, dropout and draws.
    """

    init: str | tuple[str, ...]
    trainable: tuple[str, ...]
    output: str
    data: tuple[Any, ...]
    held_out: HeldOut | None = None
    schedule: Schedule
    optimizer: Optimizer = field(default_factory=Optimizer)
    adapter: Adapter | None = None
    quantization: Literal["nf4"] | None = None
    modality: dict[str, Literal["own", "vision"]] = field(default_factory=dict)
    features: str | None = None
    mix: Literal["batch", "sample"] = "batch"
    group_by: Literal["none", "modality_length"] = "none"
    batch: int = 32
    accumulation: int = 1
    accumulation_mean: Literal["tokens", "micro_batch"] = "tokens"
    max_text_tokens: int | None = None
    max_unreadable: float = 0.01
    workers: int = 0
    trusted_media: bool = False
    distributed: Literal["ddp", "fsdp"] = "ddp"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    seed: int = 42
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    logging: Logging = field(default_factory=Logging)

    def __post_init__(self) -> None:
        for name in ("trainable", "data", "init"):
            if not getattr(self, name) and not (name == "trainable" and self.adapter):
                raise ValueError(f"{name}: expected at least one entry, got none")
        for name in ("batch", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.quantization and self.adapter is None:
            raise ValueError("quantization: weights in 4 bits cannot be trained; add an adapter, or leave it out")
        if self.quantization and self.distributed == "fsdp":
            raise ValueError("distributed: weights in 4 bits cannot be sharded; use ddp, or leave out quantization")
        for name in ("workers", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if self.max_text_tokens is not None and self.max_text_tokens < 1:
            raise ValueError(f"max_text_tokens: expected 1 or more, or null, got {self.max_text_tokens}")
        if not self.output.strip():
            raise ValueError("output: expected a folder, got an empty text")
        if not 0 <= self.max_unreadable <= 1:
            raise ValueError(f"max_unreadable: expected a share from 0 to 1, got {self.max_unreadable}")

    @property
    def starts(self) -> tuple[str, ...]:
        """The system to start from and what is put over it."""
        return (self.init,) if isinstance(self.init, str) else self.init


def read_stage(
    path: str | Path, overrides: Sequence[str] = (), *, datasets: Mapping[str, type]
) -> tuple[Stage, dict[str, Any]]:
    """Reads a stage.

    Args:
        path: a YAML, or its name in `train_configs/`.
        overrides: `a.b=c`.
        datasets: kind -> frozen dataclass of a dataset's options.

    Returns:
        The stage, and the plain data it was made of.

    Raises:
        ConfigError: an unknown or missing key, a wrong type or value; the full key path is named.
    """
    plain = config.apply_overrides(config.read_yaml(config.find_file("train_configs", path)), overrides)
    stage = config.parse(Stage, plain)
    object.__setattr__(stage, "data", _datasets(plain["data"], datasets))
    if stage.held_out is not None:
        object.__setattr__(stage.held_out, "data", _datasets(plain["held_out"]["data"], datasets, "held_out"))
    return stage, plain


def _datasets(plain: Any, kinds: Mapping[str, type], where: str = "") -> tuple[Any, ...]:
    # The table of kinds is known only now: the datasets of nano come from a layer above this one.
    table = make_dataclass("Data", [("data", tuple[Annotated[Any, Choice(kinds)], ...])], kw_only=True)
    data = config.parse(table, {"data": plain}, where).data  # type: ignore[attr-defined]
    for index, item in enumerate(data):
        ratio = getattr(item, "ratio", 1.0)
        if not ratio > 0:
            raise ConfigError(f"{where and where + '.'}data.{index}.ratio: expected a number above 0, got {ratio}")
    return data
