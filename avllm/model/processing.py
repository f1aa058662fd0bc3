"""From messages and media to the tensors that the model takes, and from its tokens back to an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from avllm import config as yaml_config
from avllm import media
from avllm.errors import ConfigError, DataError
from avllm.model.configuration import AvllmConfig, BranchConfig, System, slot_ids
from avllm.model.messages import Message, content_of, places_of
from avllm.model.options import OPTIONS, VideoOptions, checked, for_kind, named, require_use, sampling_of
from avllm.model.prompts import FormName, Kind, Medium, Prompt, Turn, conversation, drop_leading, prompt_for, show
from avllm.model.quirks import vicuna_label_drift
from avllm.model.reading import Loaded, normalise, read_audio, read_image, read_video, stack_media
from avllm.model.tokens import IGNORED, Encoded, encode
from avllm.model.untrusted import check_folder, require_no_code

# Arguments of `apply_chat_template` of `transformers` that have one value here.
_FIXED = {"return_dict": True, "return_tensors": "pt"}


class AvllmProcessor(ProcessorMixin):
    """Tokenizer, prompt form and media settings of a system; saved beside the model's weights.

    Args:
        tokenizer: the decoder's fast tokenizer.
        system: plain data of the system, as `AvllmConfig.system` holds it.
        vocab_size: size of the decoder's embedding; slot ids begin there.
    """

    # Reads all media; `avllm.media.IsolatedMedia` takes its place for files of strangers.
    door: Any = media

    @no_type_check  # transformers reads the names of its arguments, which a wrapper for checks would hide
    def __init__(
        self, tokenizer: Any, system: dict[str, Any], vocab_size: int, chat_template: str | None = None
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        self.system, self.vocab_size = system, vocab_size
        decoder = {"model_type": "llama"}  # the processor does not need the decoder's sizes
        self._parsed = yaml_config.parse(System, {**system, "decoder": decoder}, "processor_config.json: system")
        self._prompt = prompt_for(self._parsed.prompt, tokenizer)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """As in `transformers`, but no code is run, and nothing that the settings name elsewhere is opened.

        Raises:
            CheckpointError: the folder asks for it; what asks is named.
        """
        require_no_code(options.pop("trust_remote_code", False))
        if Path(pretrained_model_name_or_path).is_dir():
            check_folder(Path(pretrained_model_name_or_path))
        return super().from_pretrained(pretrained_model_name_or_path, trust_remote_code=False, **options)

    @classmethod
    def from_config(cls, config: AvllmConfig, tokenizer: Any) -> "AvllmProcessor":
        """The processor that goes with a model of this configuration."""
        return cls(tokenizer, config.system, config.text_config.vocab_size)

    @property
    def branches(self) -> Mapping[str, BranchConfig]:
        """The branches of the system, by modality."""
        return {**self._parsed.branches}

    @property
    def prompt(self) -> Prompt:
        """The system's row of the table of prompts, as it holds for the tokenizer."""
        return self._prompt

    @property
    def published_quirks(self) -> tuple[str, ...]:
        """Faults of the published code that are wanted back."""
        return self._parsed.published_quirks

    @property
    def slot_ids(self) -> dict[str, int]:
        """Modality -> id of its slots."""
        return slot_ids(self.branches, self.vocab_size)

    @property
    def pad_id(self) -> int:
        """Id at padding; it is never attended to."""
        return self.tokenizer.pad_token_id or 0

    def num_tokens(self, branch: str, num_frames: int) -> int:
        """m, slots that a medium of `num_frames` frames or segments takes, at the system's sizes."""
        settings = self._branch(branch)
        return settings.num_tokens((num_frames, *settings.media.frame_shape))

    def read(self, source: Any, kind: Kind, *, branch: str | None = None, **options: Any) -> Loaded:
        """Opens a medium as the system wants it.

        Args:
            source: whatever `avllm.media` opens; a video is a source of sound too.
            kind: what to read it as.
            branch: whose slots it shall fill: "audio" trains a branch of sound on pictures.
            options: in place of the system's settings; those of its kind in `avllm.model.options`: for a video
                `num_frames`, `sampling`, `fps`, `max_frames`, `start_s`, `end_s`, ...

        Raises:
            MediaError: it cannot be read.
            ConfigError: an option is unknown, wrong, of no use for this kind, or asks for more frames than the branch
                holds.
        """
        branch, options = self.check_reading(kind, branch=branch, **options), named(options)
        quirks = self.published_quirks
        if kind == "audio":
            return read_audio(self.door, self._branch("audio").media, source, options, quirks=quirks)
        settings = self._branch("video").media
        if kind == "image":
            return read_image(self.door, settings, source, options, branch=branch, quirks=quirks)
        limit = self._branch(branch).max_frames
        return read_video(self.door, settings, source, options, branch=branch, limit=limit, quirks=quirks)

    def check_reading(self, kind: Kind, *, branch: str | None = None, **options: Any) -> str:
        """What `read` can say of its arguments before a medium is opened.

        Returns:
            the branch that reads it.

        Raises:
            ConfigError: see `read`.
        """
        yaml_config.check_choice("kind", kind, [*OPTIONS])
        branch = branch or ("audio" if kind == "audio" else "video")
        limit, given = self._branch(branch).max_frames, checked(OPTIONS[kind], options)
        if isinstance(given, VideoOptions):
            sampling_of(given, self._branch("video").media, limit, self.published_quirks)
            return branch
        settings = self._branch(kind if kind == "audio" else "video").media
        count = getattr(settings, "num_segments" if kind == "audio" else "image_frames", None)
        if limit is not None and count is not None and count > limit:
            raise ConfigError(f"branches.{branch}: {count} frames or segments are more than the {limit} that it holds")
        return branch

    def normalise(self, frames: Any) -> Float[Tensor, "t c h w"]:
        """Frames [t h w c] as the vision encoder takes them."""
        return normalise(frames, self._branch("video").media)

    def medium(self, loaded: Loaded) -> Medium:
        """What the prompt needs to know of an opened medium."""
        count = self._branch(loaded.branch).num_tokens(loaded.values.shape)
        return Medium(kind=loaded.kind, branch=loaded.branch, num_tokens=count, times_s=loaded.times_s)

    def encode(
        self,
        turns: Sequence[Turn],
        *,
        form: FormName = "chat",
        system: str | None = None,
        max_answer_tokens: int | None = None,
    ) -> Encoded:
        """Ids and labels of a conversation. The labels are the answers and what ends them.

        Args:
            turns: questions, media and known answers; without the last answer, the ids end where it begins.
            form: which templates.
            system: in place of the form's system text.
            max_answer_tokens: see `tokens.encode`.
        """
        template = self.prompt.form(form, self.published_quirks)
        result = encode(
            conversation(template, turns, system), self.tokenizer, self.slot_ids, max_answer_tokens=max_answer_tokens
        )
        if form == "train" and "vicuna_label_drift" in self.published_quirks:
            labels = vicuna_label_drift(result.input_ids, template, turns, self.tokenizer, self.slot_ids)
            return Encoded(input_ids=result.input_ids, labels=labels)
        return result

    def __call__(  # type: ignore[override]
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]] | None = None,
        *,
        text: str | None = None,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        form: FormName = "chat",
        padding_side: Literal["left", "right"] = "left",
        **options: Any,
    ) -> BatchFeature:
        """Inputs of the model for one conversation, a list of them, or a question with media.

        Args:
            messages: `[{"role": "user", "content": [{"type": "video", "video": SOURCE}, {"type": "text", ...}]}]`; the
                types are video, image, audio and text. Parts keep their order, and texts follow each other with
                nothing between, as in chat templates of `transformers`; a system whose published form puts media in
                front of the question moves them there. Answers are messages of the role assistant.
            text: a question, in place of `messages`.
            video: source of a video that goes with `text`.
            image: source of an image.
            audio: source of a sound; a video may be given here too.
            form: "chat" to generate; "train", "caption" or "train_caption" to learn, which adds `labels`.
            padding_side: left to generate.
            options: see `read`; they hold for all media, those that a part has beside its source for this part.

        Raises:
            DataError: the messages are no conversation, or something is given beside them.
        """
        given = {"audio": audio, "image": image, "video": video}
        beside = [kind for kind, source in {"text": text, **given}.items() if source is not None]
        if messages is not None and beside:
            raise DataError(f"{', '.join(beside)}: given beside messages; put it into the content of a message")
        if messages is None:
            content = [{"type": kind, kind: source} for kind, source in given.items() if source is not None]
            messages = [{"role": "user", "content": [*content, {"type": "text", "text": text or ""}]}]
        many = [messages] if messages and isinstance(messages[0], Mapping) else messages
        encoded, loaded = [], []
        for one in many:
            turns, system, media = self.turns_of(one, **options)  # type: ignore[arg-type]
            encoded.append(self.encode(turns, form=form, system=system))
            loaded += media
        batch: dict[str, Any] = {**self.pad(encoded, padding_side=padding_side)}
        if form == "chat":
            del batch["labels"]
        require_use([item.kind for item in loaded], options)
        if loaded:
            batch["media"] = stack_media(loaded)
        return BatchFeature(batch)

    def apply_chat_template(self, conversation: Any, chat_template: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """As in `transformers`: the inputs of the model, or with `tokenize=False` the prompt as text, for people.

        The prompt ends where the next answer begins, whatever `add_generation_prompt` says.

        Raises:
            ConfigError: another template than the system's, or another kind of result, is asked for.
        """
        wanted = {"chat_template": chat_template, **{name: options.pop(name, None) for name in _FIXED}}
        for name, value in wanted.items():
            if value is not None and value != _FIXED.get(name):
                raise ConfigError(f"{name}={value!r}: prompts are those of the system, as torch tensors in a dict")
        options.pop("add_generation_prompt", None)
        if options.pop("tokenize", True):
            return self(conversation, **options)
        form = options.pop("form", "chat")
        if conversation and not isinstance(conversation[0], Mapping):
            return [self.apply_chat_template(one, tokenize=False, form=form, **options) for one in conversation]
        turns, system, _ = self.turns_of(conversation, **options)
        return self.show(turns, form=form, system=system)

    def show(self, turns: Sequence[Turn], *, form: FormName = "chat", system: str | None = None) -> str:
        """A prompt as text, for people and logs."""
        slots = {name: branch.slot for name, branch in self.branches.items()}
        marks = {"bos": self.tokenizer.bos_token or "", "eos": self.tokenizer.eos_token or ""}
        return show(conversation(self.prompt.form(form), turns, system), slots=slots, **marks)

    def turns_of(self, messages: Sequence[Message], **options: Any) -> tuple[list[Turn], str | None, list[Loaded]]:
        """Turns, system text and opened media of messages; see `__call__`.

        Raises:
            DataError: a role or a content type is unknown, or the order of the roles makes no turns.
        """
        turns: list[Turn] = []
        system, loaded = None, []
        for message in messages:
            role, parts = message.get("role"), content_of(message)
            text = "".join(part for part in parts if isinstance(part, str))
            if role == "user":
                given = [part for part in parts if not isinstance(part, str)]
                opened = [
                    self.read(part.source, part.kind, **{**for_kind(part.kind, options), **part.options})
                    for part in given
                ]
                loaded += opened
                turns.append(Turn(question=text, media=tuple(map(self.medium, opened)), places=places_of(parts)))
            elif not all(isinstance(part, str) for part in parts):
                raise DataError(f"message of the role {role!r}: holds media; expected text, media are the user's")
            elif role == "system":
                system = text
            elif role == "assistant" and turns and turns[-1].answer is None:
                turns[-1] = replace(turns[-1], answer=text)
            else:
                raise DataError(f"message role: got {role!r} here; expected system, then user and assistant in turn")
        return turns, system, loaded

    def pad(self, rows: Sequence[Encoded], *, padding_side: Literal["left", "right"] = "left") -> dict[str, Tensor]:
        """Rows of equal length, with their mask: `input_ids`, `attention_mask`, `labels`."""
        longest = max(len(row.input_ids) for row in rows)

        def table(values: Sequence[Sequence[int]], fill: int) -> Tensor:
            fills = [[fill] * (longest - len(row)) for row in values]
            return torch.tensor(
                [f + list(v) if padding_side == "left" else list(v) + f for v, f in zip(values, fills, strict=True)]
            )

        return {
            "input_ids": table([row.input_ids for row in rows], self.pad_id),
            "attention_mask": table([[1] * len(row.input_ids) for row in rows], 0),
            "labels": table([row.labels for row in rows], IGNORED),
        }

    def answer(self, ids: Sequence[int] | Tensor) -> str:
        """The answer in what the model wrote: without special tokens, stop texts and a repeated header."""
        text = self.tokenizer.decode(self.answer_ids(ids), skip_special_tokens=False)
        eos = self.tokenizer.eos_token
        return self.prompt.answer_text(text.split(eos)[0] if eos else text)

    def answer_ids(self, ids: Sequence[int] | Tensor) -> list[int]:
        """New ids without a leading unknown token and a leading bos, which some versions of `generate` return."""
        return drop_leading([int(token) for token in ids], (self.tokenizer.unk_token_id, self.tokenizer.bos_token_id))

    def _branch(self, name: str) -> BranchConfig:
        if name not in self.branches:
            raise ConfigError(f"this system has no {name} branch; it has: {', '.join(self.branches) or 'none'}")
        return self.branches[name]
