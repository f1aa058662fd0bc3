"""Chat: a system loaded once, conversations with it, and what they return."""

from avllm.chat.assistant import Assistant, Request, load
from avllm.chat.reply import Reply
from avllm.chat.session import Session
from avllm.chat.threads import choose_threads

__all__ = ["Assistant", "Reply", "Request", "Session", "choose_threads", "load"]
