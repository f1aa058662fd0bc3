"""The inference YAML of the demo (eval_configs/): which model, which of its branches, and what the page allows."""

from dataclasses import dataclass, field
from typing import Literal

from avllm.demo.hosts import is_host_pattern

AudioMode = Literal["auto", "require", "off"]


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """What the model is given of a file.

    Args:
        branches: the branches that are used; without `audio` no sound is read and sound files are refused.
        audio: how the switch stands at the start: use sound if there is any, require it, leave it out.
        frames: how many frames are sampled; None takes the model's own number.
        max_frames: upper end of the slider on the page; None hides it.
        max_seconds: longest video or sound that is read.
        max_upload_mb: largest file that is taken, in MiB.
        decode_seconds: wall clock for reading one file; it is read in a process of its own.
        max_sent_mb, max_sent_files: what one visitor may have sent that is in no chat yet.
        max_all_mb, max_all_files: all files of all visitors together.
        keep_sent_seconds: a file that was sent and that no chat took by then is removed.
    """

    branches: tuple[Literal["video", "audio"], ...] = ("video", "audio")
    audio: AudioMode = "auto"
    frames: int | None = None
    max_frames: int | None = None
    max_seconds: float = 600.0
    max_upload_mb: int = 64
    decode_seconds: float = 60.0
    max_sent_mb: int = 512
    max_sent_files: int = 128
    max_all_mb: int = 8192
    max_all_files: int = 2000
    keep_sent_seconds: float = 300.0

    def __post_init__(self) -> None:
        if "video" not in self.branches:
            raise ValueError(f"branches: got {list(self.branches)}, expected video, or video and audio")
        if "audio" not in self.branches and self.audio != "off":
            raise ValueError(f'audio: got {self.audio}, but branches has no audio; write audio: "off"')
        _require_positive(self, "frames", "max_frames", "max_seconds", "max_upload_mb", "decode_seconds")
        _require_positive(self, "max_sent_mb", "max_sent_files", "max_all_mb", "max_all_files", "keep_sent_seconds")
        if max(self.max_upload_mb, self.max_sent_mb) > self.max_all_mb or self.max_upload_mb > self.max_sent_mb:
            given = f"{self.max_upload_mb}, {self.max_sent_mb} and {self.max_all_mb}"
            raise ValueError(f"expected max_upload_mb <= max_sent_mb <= max_all_mb, got {given}")


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How answers are written.

    Args:
        max_new_tokens: longest answer, in tokens, as the page starts.
        max_new_tokens_limit: upper end of the slider.
        temperature: 0 is greedy: the same question gives the same answer.
        top_p: share of the probability that is drawn from; has no effect at temperature 0.
        num_beams: how many answers are followed at once; above 1 an answer comes whole, not in pieces.
        max_beams: upper end of the slider; 1 hides it.
        seed: of the draws at a temperature above 0; None draws anew each time.
    """

    max_new_tokens: int = 64
    max_new_tokens_limit: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    max_beams: int = 5
    seed: int | None = None

    def __post_init__(self) -> None:
        _require_positive(self, "max_new_tokens", "max_new_tokens_limit", "top_p", "num_beams")
        if self.num_beams > self.max_beams:
            raise ValueError(f"num_beams: got {self.num_beams}, more than max_beams {self.max_beams}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected 0..{2**32 - 1}, got {self.seed}")
        if self.max_new_tokens > self.max_new_tokens_limit:
            raise ValueError(
                f"max_new_tokens: got {self.max_new_tokens}, more than max_new_tokens_limit {self.max_new_tokens_limit}"
            )
        if not 0.0 <= self.temperature <= 2.0 or self.top_p > 1.0:
            raise ValueError(f"expected temperature in 0..2 and top_p in 0..1, got {self.temperature} and {self.top_p}")


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The page and its limits.

    Args:
        title, note: heading, and the line below it that says what the model knows.
        examples: folder of example clips with a truth.json: a path, or relative to the package; None for no examples.
        questions: offered as buttons when a file of the user's own is loaded.
        new_media: what a new file does as the page starts: begin a new chat, or join the chat that is there.
        max_media: files in one chat.
        votes: a JSONL file to which thumbs up and down are written, with question and answer; None offers no thumbs.
        max_question_chars: longest question.
        max_system_chars: longest system prompt.
        max_turns: questions per conversation; then Clear starts a new one.
        max_concurrent: answers written at the same time; more wait in a queue.
        max_waiting: length of that queue.
        max_visitors: open pages kept; above it the one that was idle longest is closed, or if none is idle, who comes
            is asked to try later.
        idle_minutes: a page that asks nothing for so long is closed and its files are removed.
        keep_closed_seconds: how long the files of a closed tab stay, in case its connection comes back.
    """

    title: str = "avllm"
    note: str = ""
    examples: str | None = None
    questions: tuple[str, ...] = ()
    new_media: Literal["reset", "add"] = "reset"
    max_media: int = 8
    votes: str | None = None
    max_question_chars: int = 500
    max_system_chars: int = 2000
    max_turns: int = 30
    max_concurrent: int = 1
    max_waiting: int = 32
    max_visitors: int = 100
    idle_minutes: float = 60.0
    keep_closed_seconds: float = 60.0

    def __post_init__(self) -> None:
        _require_positive(self, "max_media", "max_question_chars", "max_system_chars", "max_turns")
        _require_positive(self, "max_concurrent", "max_waiting", "max_visitors")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """One file of eval_configs/.

    Args:
        model: a name or a folder, as `avllm.load` takes it.
        models: further ones to choose from on the page; each is loaded at the start.
        system: text in place of the system text of the model's prompt; None keeps that.
        host: address to listen on; the default is reachable from this machine alone.
        port: None takes 7860 or the next free one.
        allowed_hosts: names under which the page may be called besides this machine's own, for a proxy before it;
            `*.example.org` stands for all below example.org.
    """

    model: str
    models: tuple[str, ...] = ()
    system: str | None = None
    media: MediaConfig = field(default_factory=MediaConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    page: PageConfig = field(default_factory=PageConfig)
    host: str = "127.0.0.1"
    port: int | None = None
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.allowed_hosts:
            if not is_host_pattern(name):
                raise ValueError(f"allowed_hosts: got {name!r}, expected a name such as demo.example.org, without port")
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(f"port: expected 1..65535, got {self.port}")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name}: expected a number above 0, got {value}")
