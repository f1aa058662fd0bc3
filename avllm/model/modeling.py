"""The one model class: branches, a decoder of `transformers`, and the slots between them."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.generation import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import CausalLMOutputWithPast, MoeCausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from avllm.errors import AvllmError, CheckpointError, ConfigError, NumericError
from avllm.model.configuration import AvllmConfig, BranchConfig, System
from avllm.model.four_bits import keep_own_weights
from avllm.model.splice import splice
from avllm.model.stored import MANIFEST, built_for, require_fit
from avllm.model.untrusted import check_folder, require_no_code

# The media (or features) of one branch for a whole batch: one tensor, or a list when clips differ in length.
Clips = Tensor | Sequence[Tensor]
StoredEnd = Literal["prefix", "encoder"]
# What parts and `transformers` raise on sizes that do not go together.
ODD_SIZES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Branch(nn.Module):
    """Encoder and connector of one modality: media in, tokens of the decoder's width out.

    `modality` says what the media are. It is "vision" when a branch of sound is fed pictures, which its encoder puts in
    the same space: so Video-LLaMA's audio branch is trained. `stored_end` says where stored features end: after the
    connector's `prefix`, or after the encoder when the prefix is trained too.

    Args:
        config: the branch of the system's YAML.
        out_width: d of the decoder.
    """

    def __init__(self, config: BranchConfig, *, out_width: int) -> None:
        super().__init__()
        self.encoder = config.encoder.build()
        self.connector = config.connector.build(in_width=self.encoder.width, out_width=out_width)
        self.modality: Literal["own", "vision"] = "own"
        self.stored_end: StoredEnd = "prefix"

    def features(
        self, media: Float[Tensor, "n t *rest"], modality: Literal["own", "vision"] | None = None
    ) -> Float[Tensor, "n t2 q d"]:
        """What may be stored of media, frame by frame: the branch up to `stored_end`.

        Args:
            media: frames [n t c h w] or segments [n t c f n].
            modality: in place of the branch's own setting.
        """
        encode = self.encoder.encode_vision if (modality or self.modality) == "vision" else self.encoder
        encoded = encode(media)
        return self.connector.prefix(encoded) if self.stored_end == "prefix" else encoded

    def tokens(self, features: Float[Tensor, "n t q d"]) -> Float[Tensor, "n m d_llm"]:
        """From stored features to the tokens that fill the slots."""
        return self.connector.resample(features) if self.stored_end == "prefix" else self.connector(features)

    def feature_weights(self, end: StoredEnd) -> dict[str, Tensor]:
        """The weights that `features` uses when it ends there, by their names below the branch."""
        used = getattr(self.encoder, "PARTS", {}).get(self.modality)
        parts = [f"encoder.{part}." for part in used] if used else ["encoder."]
        if end == "prefix":
            parts += [f"connector.{part}." for part in getattr(self.connector, "PREFIX", ())]
        return {name: value for name, value in self.state_dict().items() if name.startswith(tuple(parts))}

    def forward(self, media: Float[Tensor, "n t *rest"]) -> Float[Tensor, "n m d_llm"]:
        # Through `forward` of both parts, where accelerate's hooks bring weights and inputs to one device.
        if self.modality == "vision":
            return self.connector(self.encoder.encode_vision(media))
        return self.connector(self.encoder(media))


class FiniteLogits(LogitsProcessor):
    """Stops a generation whose logits are not numbers, which would otherwise print one token for ever."""

    def __call__(self, input_ids: Int[Tensor, "b l"], scores: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        if bool(torch.isnan(scores).any() | torch.isposinf(scores).any()):
            raise NumericError(
                f"the logits of new token {input_ids.shape[1] + 1} are not finite; the weights are damaged or "
                f"their dtype is too small (use float32 or bfloat16)"
            )
        return scores


class AvllmForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A system of the Video-LLaMA family: branches that fill slots of a prompt, and the decoder that reads it.

    `media` maps a modality to [n t c h w] (frames) or [n t c f n] (segments of sound), n media in batch order; a list
    of tensors [t ...] when they differ in t. `features` maps it to stored outputs of `Branch.features` instead.
    """

    config_class = AvllmConfig
    main_input_name = "input_ids"
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _can_compile_fullgraph = False

    def __init__(self, config: AvllmConfig) -> None:
        super().__init__(config)
        try:
            self._build(config, config.parsed())
        except (AvllmError, torch.OutOfMemoryError):
            raise
        except ODD_SIZES as error:
            told = " ".join(str(error).split())[:300]
            raise ConfigError(f"no model can be built of these sizes ({type(error).__name__}: {told})") from error
        self._no_split_modules = [*(self.decoder._no_split_modules or []), "Block", "QFormerLayer"]
        self.post_init()
        if config.text_config.model_type != "mixtral" and getattr(config, "quantization_config", None) is None:
            # The experts of the one are stored one by one, the other's weights are packed.
            require_fit(self, is_tied=config.tie_word_embeddings)

    def _build(self, config: AvllmConfig, system: System) -> None:
        width = config.text_config.hidden_size
        # On the meta device there is nothing to fill, and torch goes through Python for every weight that is drawn.
        with no_init_weights() if torch.get_default_device().type == "meta" else nullcontext():
            self.branches = nn.ModuleDict({k: Branch(v, out_width=width) for k, v in system.branches.items()})
        self.decoder = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: encoders and connectors fill their own weights when they are built, the decoder its own."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **options: Any) -> None:
        """As in `transformers`; checksums of weights that were there before go, as they are of other weights."""
        super().save_pretrained(save_directory, *args, **options)
        Path(save_directory, MANIFEST).unlink(missing_ok=True)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **options):
        """As in `transformers`, but weights load whole or not at all, from safetensors alone, and no code is run.

        Raises:
            CheckpointError: a weight is missing or left over, and all of them are named; or the folder asks for code.
        """
        require_no_code(options.pop("trust_remote_code", False))
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            check_folder(folder)
        # Mismatches are let through here only to be named below; transformers' own error names none of them.
        options |= {"ignore_mismatched_sizes": True, "output_loading_info": True, "use_safetensors": True}
        with built_for(folder) if folder.is_dir() else nullcontext():
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *args, trust_remote_code=False, **options
            )
        model, info = loaded
        odd = {key: sorted(item if isinstance(item, str) else item[0] for item in info[key]) for key in _FAULTS}
        faults = [f"{what} {', '.join(odd[key][:8])}" for key, what in _FAULTS.items() if odd[key]]
        if faults:
            raise CheckpointError(f"{pretrained_model_name_or_path}: {'; '.join(faults)}; convert or save it again")
        keep_own_weights(model)
        return (model, info) if output_loading_info else model

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.decoder.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.decoder.get_decoder()

    def branch_tokens(self, name: str, media: Clips | None, features: Clips | None) -> Float[Tensor, "m d"]:
        """All tokens of one modality for a batch, medium after medium."""
        branch = self.branches[name]
        assert isinstance(branch, Branch)
        if features is None:
            assert media is not None
            clips = _map_clips(lambda clip: branch(clip.to(self.dtype)), media)
        else:
            clips = _map_clips(lambda clip: branch.tokens(clip.to(self.dtype)), features)
        return torch.cat(clips) if clips else torch.zeros(0, self.config.text_config.hidden_size)

    def embed(
        self,
        input_ids: Int[Tensor, "b l"],
        media: Mapping[str, Clips] | None = None,
        features: Mapping[str, Clips] | None = None,
        tokens: Mapping[str, Float[Tensor, "m d"]] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Embeds the prompts: token ids by the decoder's table, slots by the branches.

        Args:
            input_ids: prompts with slot ids where media go.
            media: see the class.
            features: see the class.
            tokens: modality -> what `branch_tokens` returned for the whole batch, in place of the two above.

        Raises:
            ValueError: an id outside the vocabulary that is no slot, a modality without a branch, or other numbers of
                slots and media tokens.
        """
        media, features, ready = media or {}, features or {}, dict(tokens or {})
        slots, vocab_size = self.config.slot_ids(), self.config.text_config.vocab_size
        for name in {**media, **features, **ready}:
            if name not in slots:
                raise ValueError(
                    f"media {name!r}: this system has no such branch, it has: {', '.join(slots) or 'none'}"
                )
        if input_ids.numel() and int(input_ids.max()) >= vocab_size + len(slots):
            raise ValueError(
                f"input_ids hold {int(input_ids.max())}; the vocabulary ends before {vocab_size} and slots"
            )
        embeds = self.get_input_embeddings()(input_ids.masked_fill(input_ids >= vocab_size, 0))
        for name in {**media, **features}:
            ready.setdefault(name, self.branch_tokens(name, media.get(name), features.get(name)))
        for name, slot_id in slots.items():
            filled = ready.get(name, embeds.new_zeros(0, embeds.shape[-1]))
            embeds = splice(embeds, input_ids == slot_id, filled.to(embeds.device))
        return embeds

    def forward(
        self,
        input_ids: Int[Tensor, "b l"] | None = None,
        attention_mask: Tensor | None = None,
        labels: Int[Tensor, "b l"] | None = None,
        media: Mapping[str, Clips] | None = None,
        features: Mapping[str, Clips] | None = None,
        inputs_embeds: Float[Tensor, "b l d"] | None = None,
        position_ids: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        uncounted: Int[Tensor, "b l"] | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast | MoeCausalLMOutputWithPast:
        """Loss and logits.

        Args:
            input_ids: prompts with slot ids where media go.
            attention_mask: 0 at padding, on either side.
            labels: ids to predict, -100 where there is nothing to learn; not shifted.
            media: see the class.
            features: see the class.
            inputs_embeds: what `embed` returned, in place of the three above.
            position_ids: as in `transformers`; by default padding on the left is not counted.
            num_items_in_batch: divides the summed loss in place of the number of labels (gradient accumulation).
            uncounted: beside each label an id that is neither right nor wrong there, -100 for none.
            options: what the decoder takes (`use_cache`, `logits_to_keep`, ...).

        Returns:
            the decoder's output. With labels, `logits` holds only the positions that predict a label of some row.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, media, features)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            # Counted from the first real token, so that a row of a left-padded batch computes what it does alone.
            counted = torch.arange(attention_mask.shape[1], device=attention_mask.device)
            first = attention_mask.long().argmax(-1, keepdim=True)
            position_ids = (counted - first).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        inputs = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "position_ids": position_ids}
        if labels is None:
            return self.decoder(**inputs, **options)
        targets = F.pad(labels[:, 1:], (0, 1), value=-100)
        kept = (targets != -100).any(0).nonzero().squeeze(-1)
        out = self.decoder(**inputs, **{"use_cache": False, **options, "logits_to_keep": kept})
        aside = None if uncounted is None else F.pad(uncounted[:, 1:], (0, 1), value=-100)[:, kept]
        out.loss = _loss(out.logits, targets[:, kept], num_items_in_batch, aside)
        return out

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "b l"] | None = None,
        attention_mask: Tensor | None = None,
        media: Mapping[str, Clips] | None = None,
        features: Mapping[str, Clips] | None = None,
        inputs_embeds: Float[Tensor, "b l d"] | None = None,
        logits_processor: Sequence[LogitsProcessor] = (),
        **options: Any,
    ) -> Any:
        """New tokens only, by any option of `transformers` (beams, sampling, streamers, caches, ...).

        To go on from a cache (`cache`; before transformers 5.24: `past_key_values`), pass the whole conversation:
        what it holds is not computed again.

        Raises:
            NumericError: the logits are not finite.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, media, features)
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        self.decoder.generation_config = self.generation_config
        checks = LogitsProcessorList([*logits_processor, FiniteLogits()])
        return self.decoder.generate(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, logits_processor=checks, **options
        )


_FAULTS = {"missing_keys": "missing:", "unexpected_keys": "left over:", "mismatched_keys": "of another shape:"}


def _map_clips(run: Callable[[Tensor], Tensor], clips: Clips) -> list[Tensor]:
    """Runs media of equal shape together; returns the tokens of each medium in the order given."""
    if isinstance(clips, Tensor):
        return list(run(clips)) if len(clips) else []
    results: dict[int, Tensor] = {}
    for shape in {clip.shape for clip in clips}:
        index = [i for i, clip in enumerate(clips) if clip.shape == shape]
        results.update(zip(index, run(torch.stack([clips[i] for i in index])), strict=True))
    return [results[i] for i in range(len(clips))]


def _loss(
    logits: Float[Tensor, "b k v"],
    targets: Int[Tensor, "b k"],
    num_items: Tensor | int | None,
    uncounted: Int[Tensor, "b k"] | None = None,
) -> Float[Tensor, ""]:
    is_target: Bool[Tensor, "b k"] = targets != -100
    picked = logits[is_target].float()
    if uncounted is not None:
        ids = uncounted[is_target][:, None]
        is_aside = torch.zeros_like(picked, dtype=torch.bool).scatter(-1, ids.clamp(min=0), ids >= 0)
        picked = picked.masked_fill(is_aside, -torch.inf)
    if num_items is None:
        return F.cross_entropy(picked, targets[is_target])
    return F.cross_entropy(picked, targets[is_target], reduction="sum") / num_items
