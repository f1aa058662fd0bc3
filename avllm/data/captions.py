"""Text clean-up of the published stage 1."""

import re

# The published processor replaces these, and only these, by a space; other marks stay.
MARKS = re.compile(r"[.!\"()*#:;~]")
RUNS = re.compile(r"\s{2,}")


def clean_caption(text: str, *, max_words: int = 50) -> str:
    """Lower case, some marks out, runs of white space to one space, the first `max_words` words.

    Source: the caption processor of BLIP that Video-LLaMA's stage 1 uses.
    """
    text = RUNS.sub(" ", MARKS.sub(" ", text.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])
