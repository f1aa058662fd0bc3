"""The page: a file on the left, the conversation on the right, and below it what the model got."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from avllm.demo import panels
from avllm.demo.controls import Controls, new_media
from avllm.demo.conversation import Conversations
from avllm.demo.examples import Example
from avllm.demo.settings import Settings
from avllm.demo.visitors import Refused, Visitor

_CLICKED_CARD = """element.addEventListener("click", (event) => {
  const card = event.target.closest(".av-card");
  if (card) trigger("picked", { index: Number(card.dataset.index) });
});"""
_CLICKED_CHIP = """element.addEventListener("click", (event) => {
  const chip = event.target.closest(".av-chip");
  if (chip) trigger("asked", { question: chip.textContent });
});"""
# Files that are read, and answers that wait for their turn: each holds a thread of the server.
_MAX_LOADS, _MAX_PREPARED = 12, 8
_VOTES_NOTE = "A thumb stores the question and the answer with your vote; nothing else is stored."
_EMPTY_CHAT = "### Ask about what is seen and heard\nPick an example or add a file, then ask."


class Page:
    """Builds the Gradio page over `Conversations` and hands every event to it."""

    def __init__(self, conversations: Conversations, examples: tuple[Example, ...]) -> None:
        self.conversations = conversations
        self.examples = examples
        self.config = conversations.config

    def build(self) -> gr.Blocks:
        """The page, not yet served."""
        config = self.config
        with gr.Blocks(title=config.page.title, analytics_enabled=False) as blocks:
            _html(panels.header(config.page.title, config.page.note), elem_id="av-header")
            with gr.Row(elem_id="av-columns", equal_height=False):
                with gr.Column(elem_id="av-left", min_width=280):
                    self.file = _html(self._file_panel(None), elem_id="av-file", js=panels.asset("page.js"))
                    self.new_media = new_media(config)
                    self.cards = _html(panels.example_cards(self.examples), elem_id="av-examples", js=_CLICKED_CARD)
                    frames = self.conversations.model.num_frames(config.media.frames)
                    self.controls = Controls(config, frames)
                with gr.Column(elem_id="av-right", min_width=280):
                    self._build_chat()
                    self.evidence = _html(panels.evidence_panel(None), elem_id="av-evidence")
            self._connect(blocks)
        blocks.queue(max_size=config.page.max_waiting, default_concurrency_limit=8, api_open=False)
        return blocks

    def _build_chat(self) -> None:
        self.chat = gr.Chatbot(
            elem_id="av-chat",
            show_label=False,
            height=None,
            render_markdown=False,
            sanitize_html=True,
            layout="bubble",
            placeholder=_EMPTY_CHAT,
            buttons=["copy"],
            editable="user",
            feedback_options=("Like", "Dislike") if self.conversations.votes is not None else None,
            group_consecutive_messages=False,
        )
        self.chips = _html(panels.question_chips(()), elem_id="av-questions", js=_CLICKED_CHIP)
        with gr.Row(elem_id="av-ask", equal_height=True):
            self.question = gr.Textbox(
                show_label=False,
                label="Question",
                placeholder="Ask about the file",
                lines=1,
                max_lines=4,
                submit_btn=True,
                stop_btn=False,
                elem_id="av-question",
                scale=8,
                max_length=self.config.page.max_question_chars,
            )
        with gr.Row(elem_id="av-actions"):
            self.regenerate = gr.Button("Regenerate", elem_id="av-regenerate", size="sm")
            self.undo = gr.Button("Undo", elem_id="av-undo", size="sm")
            self.clear = gr.Button("Clear", elem_id="av-clear", size="sm")
        if self.conversations.votes is not None:
            gr.HTML(_VOTES_NOTE, elem_id="av-votes-note", padding=False)

    def _connect(self, blocks: gr.Blocks) -> None:
        shown = [self.file, self.chat, self.chips, self.evidence]
        asking = [self.question, self.chat, self.file]
        # What comes is in the visitor's hands; it is checked here, as Gradio would take some of it for a fault.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
        for event, handler, given in (
            (self.file.uploaded, self._on_upload, [self.new_media]),
            (self.file.refused, self._on_refusal, None),
            (self.file.removed, self._on_remove, None),
            (self.cards.picked, self._on_pick, [self.new_media]),
        ):
            event(handler, given, shown, concurrency_limit=_MAX_LOADS, **quiet)
        for accepted in (
            self.question.submit(self._on_question, [self.question], asking, queue=False, **quiet),
            self.chips.asked(self._on_chip, None, asking, queue=False, **quiet),
            self.regenerate.click(self._on_regenerate, None, asking, queue=False, **quiet),
            self.chat.edit(self._on_edit, None, asking, queue=False, **quiet),
        ):
            accepted.then(
                self._answer,
                list(self.controls.inputs().values()),
                [self.question, self.chat, self.evidence],
                concurrency_limit=self.config.page.max_concurrent + _MAX_PREPARED,
                concurrency_id="answers",
                **quiet,
            )
        self.question.stop(self._on_stop, None, None, queue=False, **quiet)
        for button, handler in ((self.clear, self._on_clear), (self.undo, self._on_undo)):
            button.click(handler, None, [self.question, self.chat, self.evidence], queue=False, **quiet)
        if self.conversations.votes is not None:
            self.chat.like(self._on_vote, None, None, queue=False, **quiet)
        blocks.unload(self._on_unload)

    # What follows is called by Gradio; `request` tells the tabs apart.

    def _on_upload(self, new_media: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        visitor, adds = self._visitor(request), new_media == "add"
        sent, name = _field(event, "sent"), _field(event, "name")
        self.conversations.load_upload(visitor, str(sent), name if isinstance(name, str) else "", adds=adds)
        return self._shown(visitor)

    def _on_refusal(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        visitor = self._visitor(request)
        num_bytes = _field(event, "bytes")
        reason = str(_field(event, "reason"))
        self.conversations.refuse_upload(visitor, num_bytes if type(num_bytes) is int else 0, reason)
        return self._shown(visitor)

    def _on_remove(self, request: gr.Request) -> tuple[Any, ...]:
        visitor = self._visitor(request)
        self.conversations.unload(visitor)
        return self._shown(visitor)

    def _on_pick(self, new_media: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        visitor = self._visitor(request)
        index = _field(event, "index")
        if type(index) is int and 0 <= index < len(self.examples):
            self.conversations.load_example(visitor, self.examples[index], adds=new_media == "add")
        return self._shown(visitor)

    def _on_question(self, question: object, request: gr.Request) -> tuple[Any, Any, Any]:
        visitor = self._visitor(request)
        if self.conversations.accept(visitor, question if isinstance(question, str) else ""):
            return _waiting(), _messages(visitor), gr.skip()
        # A page that was idle for long has lost its file; it must not go on showing it.
        file = gr.skip() if visitor.medium is not None else self._file_panel(visitor)
        return gr.skip(), _messages(visitor), file

    def _on_chip(self, event: gr.EventData, request: gr.Request) -> tuple[Any, Any, Any]:
        return self._on_question(_field(event, "question"), request)

    def _on_regenerate(self, request: gr.Request) -> tuple[Any, Any, Any]:
        visitor = self._visitor(request)
        is_asked = self.conversations.regenerate(visitor)
        return (_waiting() if is_asked else gr.skip()), _messages(visitor), gr.skip()

    def _on_edit(self, event: gr.EventData, request: gr.Request) -> tuple[Any, Any, Any]:
        visitor = self._visitor(request)
        index, value = _index(_field(event, "index")), _field(event, "value")
        text = panels.unplain(value) if isinstance(value, str) else ""
        is_asked = self.conversations.edit(visitor, index, text)
        return (_waiting() if is_asked else gr.skip()), _messages(visitor), gr.skip()

    def _answer(self, request: gr.Request, *given: object) -> Iterator[tuple[Any, Any, Any]]:
        visitor = self._visitor(request)
        if visitor.pending is None or visitor.pending.is_started:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        settings = Settings.checked(self.config, **dict(zip(self.controls.inputs(), given, strict=True)))
        for _ in self.conversations.answer(visitor, settings):
            yield gr.skip(), _messages(visitor), gr.skip()
        is_next = visitor.pending is not None  # Regenerate was clicked meanwhile: its answer can be stopped too
        yield (gr.skip() if is_next else _ready()), _messages(visitor), panels.evidence_panel(visitor.evidence)

    def _on_stop(self, request: gr.Request) -> None:
        self._visitor(request).stop()

    def _on_clear(self, request: gr.Request) -> tuple[Any, Any, Any]:
        visitor = self._visitor(request)
        self.conversations.clear(visitor)
        return _ready(), _messages(visitor), panels.evidence_panel(None)

    def _on_undo(self, request: gr.Request) -> tuple[Any, Any, Any]:
        visitor = self._visitor(request)
        question = self.conversations.undo(visitor)
        # The question comes back to be changed and asked again.
        field = _ready() if question is None else gr.update(value=question, submit_btn=True, stop_btn=False)
        return field, _messages(visitor), panels.evidence_panel(visitor.evidence)

    def _on_vote(self, event: gr.EventData, request: gr.Request) -> None:
        visitor = self._visitor(request)
        self.conversations.vote(visitor, _index(_field(event, "index")), _field(event, "liked"))

    def _on_unload(self, request: gr.Request) -> None:
        self.conversations.visitors.leave(request.session_hash)

    def _visitor(self, request: gr.Request) -> Visitor:
        scope = getattr(getattr(request, "request", None), "scope", {})
        try:
            return self.conversations.visitor(request.session_hash, scope.get("avllm.sender", ""))
        except Refused as error:
            if "avllm.answer" in scope:  # of an event that does not wait: this is its answer
                scope["avllm.answer"].reason = str(error)
            raise gr.Error(str(error), print_exception=False) from error

    def _shown(self, visitor: Visitor) -> tuple[Any, ...]:
        questions = visitor.questions if visitor.medium else ()
        return (
            self._file_panel(visitor),
            _messages(visitor),
            panels.question_chips(questions),
            panels.evidence_panel(visitor.evidence),
        )

    def _file_panel(self, visitor: Visitor | None) -> str:
        audio = ("sound",) if "audio" in self.config.media.branches else ()
        # The counter makes each answer of the server a new value, which ends the "reading" state in the browser.
        turn = 0 if visitor is None else visitor.num_updates()
        panel = panels.file_panel(
            visitor.media if visitor else (),
            max_mb=self.config.media.max_upload_mb,
            kinds=("video", "image", *audio),
        )
        return f'<div data-update="{turn}">{panel}</div>'


def _html(value: str, *, elem_id: str, js: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, js_on_load=js, apply_default_css=False, padding=False)


def _field(event: gr.EventData, name: str) -> object:
    # The page is in the visitor's hands: nothing about an event is taken for granted.
    data = event._data
    return data.get(name) if isinstance(data, dict) else None


def _index(index: object) -> int:
    # Gradio gives the number of the message, or a pair that begins with it.
    first = index[0] if isinstance(index, list | tuple) and index else index
    return first if type(first) is int else -1


def _messages(visitor: Visitor) -> list[dict[str, Any]]:
    return [{**message, "content": panels.plain(message["content"])} for message in visitor.messages]


def _waiting() -> Any:
    return gr.update(value="", submit_btn=False, stop_btn="Stop", placeholder="Answering…")


def _ready() -> Any:
    return gr.update(submit_btn=True, stop_btn=False, placeholder="Ask about the file")
