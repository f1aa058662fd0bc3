"""The normal form in which the evaluation of VQA compares answers."""

import re
from collections.abc import Iterable

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = frozenset({"a", "an", "the"})
# The contractions of the VQA table; each is also found with any one of its apostrophes left out.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_COMPLETED = {
    word[: mark.start()] + word[mark.end() :]: word for word in _CONTRACTIONS.split() for mark in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}


def normalise_vqa(text: str) -> str:
    """An answer as VQA's evaluation compares it.

    Source: the evaluation of VQA v2 as TextVQA uses it; lower case, no articles, digits for number words.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    original = text
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in original or f" {mark}" in original
        text = text.replace(mark, "" if touches_space else " ")
    return " ".join(vqa_words(re.sub(r"\.(?!\d)", "", text).split()))


def vqa_words(words: Iterable[str]) -> list[str]:
    """Words in lower case as VQA's evaluation compares them: no articles, digits for number words, apostrophes back."""
    digits = [_WORDS.get(word, word) for word in words]
    return [_COMPLETED.get(word, word) for word in digits if word not in _ARTICLES]
