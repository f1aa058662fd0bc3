"""Yes or no in an answer of any wording: the first word that decides, else what the first sentence denies."""

import re
from collections.abc import Mapping

from avllm.answers.words import final_part, plain

# Each decides wherever it stands.
_DECIDES: Mapping[str, str] = {
    **dict.fromkeys(("yes", "yeah", "yep", "yup", "yea", "affirmative"), "yes"),
    **dict.fromkeys(("no", "nope", "nah"), "no"),
}
# Each decides where it is all that stands between two marks, as in "Correct, he is", and after "the answer is".
_DECIDES_ALONE: Mapping[str, str] = {
    **dict.fromkeys(
        ("y", "true", "correct", "right", "sure", "indeed", "absolutely", "certainly", "definitely"), "yes"
    ),
    **dict.fromkeys(("exactly", "of course", "positive", "undoubtedly"), "yes"),
    **dict.fromkeys(("n", "false", "incorrect", "wrong", "untrue", "never", "negative"), "no"),
}
_DENIES = {"not", "cannot", "never", "neither", "nor", "none", "nobody", "nothing", "nowhere"}
_AUXILIARY = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|will|would)"
# A subject and an auxiliary verb alone affirm what was asked: "He is.", "Yes" in other words.
_AFFIRMS = re.compile(
    rf"(?:\b(?:he|she|it|they|we|you|i|there|that|this|the \w+) (?:\w+ly )?{_AUXILIARY}"
    r"|\b(?:think|believe|guess|seems?|appears?) so|\b(?:undoubtedly|indeed|absolutely|certainly|definitely))\s*$"
)
_REWRITTEN = (
    # Quotes; Chinese, the longer before what stands within it.
    (r"(?<!\w)'|'(?!\w)", " "), ("毫无疑问", " undoubtedly "), ("是否|不过|不同|对不起|对于", " "),
    ("不确定|不知道|不清楚|无法|看不出|不好说", " unknown "),
    ("没错|不错", " yes "), ("不是|不对|不会|没有|没|并非|否定|否|错误|错|不|无", " no "), ("答案", " answer "),
    (r"是的|是|肯定|正确|(?<!\w)(?:对的?|有|会|能)", " yes "),
    # Words of these that say neither yes nor no.
    (r"\bthere(?:'s| is) no (?:\w+ )?(?:doubt|question)\b|\b(?:no|without(?: a| any)?|beyond(?: a| any)?) doubt\b",
     " undoubtedly "),
    (r"\byes\W+(?:or|and)\W+no\b|\byes/no\b|\bno or yes\b", " "),
    (r"\b(?:not|no) (?:only|just|matter|problem|more than|less than)\b", " "),
    (r"\b(?:why|if|or) not\b|\b(?:with|in|of|by|at|for) no\b", " "),
    (r"\bno (?:idea|information|way to|clear answer)\b|\bun(?:clear|known|certain|answerable)\b", " unknown "),
    (r"(?:\bnot|n't|\bcannot|\bdont|\bcant|\bhard|\bdifficult|\bimpossible|\bunable)(?: \w+){0,3}? "
     r"(?:tell|say|determined?|known?|sure|certain|clear|enough|confirm|judge|verify)\b", " unknown "),
)  # fmt: skip
_LINKS = {"is", "be", "would", "the", "a", "to", "this", "that", "question", "my", "clearly", "simply", "definitely"}


def read_yes_no(answer: str) -> str:
    """Yes or no; nothing where the answer says neither.

    A word that decides right after the last "the answer is" counts; else the first such word, of yes, no and their
    like, wherever it stands, and of true, correct, wrong and their like where they stand alone. Without one, a first
    sentence that denies (not, never, nobody, ...) is a no, and one that only affirms ("He is.") a yes. "Not sure",
    "it cannot be told" and "yes or no" are neither.
    """
    text = plain(final_part(answer)).casefold()
    for form, written in _REWRITTEN:
        text = re.sub(form, written, text)
    clauses = [" ".join(clause.split()) for clause in re.split(r"[^\w' ]+|\b(?:but|because|since)\b", text)]
    return _announced(text) or _decided(clauses) or ("" if "unknown" in text.split() else _stated(text))


def _announced(text: str) -> str:
    """What is said right after the last "answer", or "answer is"."""
    said = ""
    words = re.findall(r"[\w']+", text)
    for index, word in enumerate(words):
        if word in ("answer", "verdict"):
            after = next((word for word in words[index + 1 :] if word not in _LINKS), "")
            said = _DECIDES.get(after) or _DECIDES_ALONE.get(after) or said
    return said


def _decided(clauses: list[str]) -> str:
    for clause in clauses:
        found = next((_DECIDES[word] for word in clause.split() if word in _DECIDES), "")
        alone = re.sub(r"^(?:(?:that|it|this)(?:'s| is)|you are|quite) ", "", clause)
        if found or alone in _DECIDES_ALONE:
            return found or _DECIDES_ALONE[alone]
    return ""


def _stated(text: str) -> str:
    """What the first sentence denies or affirms; a question states nothing."""
    sentences = re.findall(r"[^.!?;\n]*\w[^.!?;\n]*[.!?;\n]*", text)
    first = next((found for found in sentences if not found.rstrip().endswith("?")), "")
    words = re.findall(r"[\w']+", first)
    if any(word in _DENIES or word.endswith(("n't", "dont", "doesnt", "isnt", "cant")) for word in words):
        return "no"
    return "yes" if _AFFIRMS.search(re.sub(r"[^\w' ]+", " ", first)) else ""
