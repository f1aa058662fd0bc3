"""A conversation: turns, their media, and the decoder's memory of them."""

import time
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from transformers.cache_utils import DynamicCache

from avllm.chat.assistant import Assistant, AudioMode, Prompted
from avllm.chat.generation import StopOnText, TextStreamer
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.model import Turn


class Session:
    """Questions and answers that build on each other. Media given once stay in view for later questions.

    Args:
        assistant: who answers.
        system: in place of the system text of the prompt form.
    """

    def __init__(self, assistant: Assistant, *, system: str | None = None) -> None:
        self.assistant, self.system = assistant, system
        self.turns: list[Turn] = []
        self.media: list[Perceived] = []
        self.last: Reply | None = None
        self._cache: DynamicCache | None = None
        self._cached: list[Any] = []

    def reset(self) -> None:
        """Forgets turns and media. Encoded media stay in the assistant's store."""
        self.turns, self.media, self.last = [], [], None
        self._cache, self._cached = None, []

    def ask(
        self,
        question: str,
        *,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        audio_mode: AudioMode = "auto",
        num_frames: int | None = None,
        **options: Any,
    ) -> str:
        """The answer to a question; `last` tells how it came about.

        Args:
            question: any text; nothing in it has a special meaning.
            video: a new video: a path or another source that `avllm.media` opens.
            image: a new image.
            audio: a new sound, in place of the video's own.
            audio_mode: whether a video's own sound is used: "auto", "require" or "off".
            num_frames: frames of the video to look at.
            options: what `generate` of `transformers` takes (`max_new_tokens`, `do_sample`, `num_beams`, ...).

        Raises:
            MediaError: a medium cannot be read. The conversation stays as it was.
        """
        given = {"video": video, "image": image, "audio": audio, "audio_mode": audio_mode, "num_frames": num_frames}
        return self._answer(question, given, options, None, None).answer

    def stream(self, question: str, **options: Any) -> Iterator[str]:
        """The same as `ask`, in pieces as they are written. To leave the loop early ends the answer there."""
        names = ("video", "image", "audio", "audio_mode", "num_frames")
        given = {name: options.pop(name) for name in names if name in options}
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        cancelled = Event()

        def work() -> None:
            try:
                streamer = TextStreamer(self.assistant.processor, pieces.put)
                self._answer(question, given, options, streamer, cancelled)
                pieces.put(None)
            except BaseException as error:  # handed to the reader, who raises it
                pieces.put(error)

        worker = Thread(target=work, daemon=True)
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            cancelled.set()
            worker.join()

    def _answer(
        self,
        question: str,
        given: dict[str, Any],
        options: dict[str, Any],
        streamer: TextStreamer | None,
        cancelled: Event | None,
    ) -> Reply:
        started = time.perf_counter()
        new = self.assistant.perceive_all(**given)
        turn = Turn(question=question, media=tuple(item.medium for item in new))
        media = [*self.media, *new]
        prompt = self.assistant.prompt([*self.turns, turn], media, self.system)
        is_plain = options.get("num_beams") in (None, 1) and options.get("num_return_sequences") in (None, 1)
        cache = self._recall(prompt) if is_plain else None
        stop = StopOnText(self.assistant.processor, cancelled)
        out = self.assistant.generate(prompt.embeds, cache=cache, stop=stop, streamer=streamer, **options)
        if cache is not None:
            # The last new token was never fed back, so the cache does not hold it.
            self._cache, self._cached = cache, [*prompt.keys, *out.ids[0]][: cache.get_seq_length()]
        answer = self.assistant.processor.answer(out.ids[0])
        self.turns.append(Turn(question=question, media=turn.media, answer=answer))
        self.media = media
        timings = {**out.timings_s, "total": time.perf_counter() - started}
        self.last = self.assistant.reply(question, answer, media, timings, new=len(new))
        return self.last

    def _recall(self, prompt: Prompted) -> DynamicCache:
        """The cache, cut to what it shares with the prompt. It leaves the session until the answer is there."""
        cache, cached = self._cache, self._cached
        self._cache, self._cached = None, []
        shared = 0
        for known, wanted in zip(cached, prompt.keys[:-1], strict=False):  # one position is always computed
            if known != wanted:
                break
            shared += 1
        if cache is None or shared == 0:
            return DynamicCache(config=self.assistant.model.config.text_config)
        if shared < len(cached):
            cache.crop(shared - len(cached))
        return cache
