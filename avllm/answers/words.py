"""What a model wrote in one plain form: without its thinking and without marks around words; Chinese as English."""

import re
import unicodedata

from avllm.answers.vqa import vqa_words

_NAMES = r"think(?:ing)?|thoughts?|reasoning|analysis|reflection"
_OPENS = rf"(?:<|◁|\[)(?:\|?begin_of_thought\||{_NAMES})(?:>|▷|\])"
_ENDS = rf"(?:<|◁|\[)(?:\|?end_of_thought\||/(?:{_NAMES}))(?:>|▷|\])"
_CHARACTERS = str.maketrans(
    dict.fromkeys("’‘‛´ʼ", "'")
    | dict.fromkeys("“”„«»「」『』", '"')
    | dict.fromkeys("–—―−‐‑", "-")
    | dict.fromkeys("【〔〖《", "[")
    | dict.fromkeys("】〕〗》", "]")
    | {"。": ".", "、": ",", "\u2028": "\n", "\u2029": "\n", "\r": "\n"}
)
CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# By what an answer in Chinese says what it chooses, and ticks and crosses; the longest that begins at a place is read.
_CHINESE = {
    **dict.fromkeys("✓✔✅☑", " : correct "), **dict.fromkeys("✗✘❌✖×", " : wrong "),
    "毫无疑问": " undoubtedly ", "没错": " yes ", "不错": " yes ", "不是": " is not ", "不选": " not choose ",
    "不对": " not correct ", "没有": " not ", "并非": " not ", "而非": " not ", "而不": " not ", "既不": " neither ",
    "也不": " nor ", "不": " not ", "没": " not ", "非": " not ", "排除": " exclude ", "除了": " except ",
    "错过": " misses ", "错误": " is wrong ", "错": " is wrong ", "正确": " is correct ",
    "对于": " for ", "对应": " matches ", "对不起": " sorry ", "对": " is correct ", "符合": " fits ",
    "故事": " story ", "行为": " action ", "答案": " answer ", "选项": " option ",
    "选手": " player ", "应选": " choose ", "选择": " choose ", "选": " choose ", "是否": " whether ", "是": " is ",
    "为什么": " why ", "为了": " for ", "因为": " because ", "由于": " because ", "因此": " so ", "所以": " so ",
    "综上": " so ", "故": " so ", "但是": " but ", "但": " but ", "而是": " but ", "如果": " if ", "为": " is ",
    "应该": " should ", "认为": " think ", "觉得": " think ", "还是": " or ", "或者": " or ", "或": " or ",
    "以及": " and ", "和": " and ",
    "与": " and ", "最": " most ", "项": " ", "都": " ", "均": " ", "的": " ",
}  # fmt: skip
_CHINESE_WORD = re.compile("|".join(sorted(_CHINESE, key=len, reverse=True)))


def final_part(answer: str) -> str:
    """The answer without its thinking: blocks such as `<think>...</think>`, also where a prompt opened the first one.

    A block that never ends leaves nothing: the model was cut off before it answered.
    """
    answer = re.sub(rf"{_OPENS}.*?{_ENDS}", "\n", answer, flags=re.DOTALL | re.IGNORECASE)
    answer = re.split(_ENDS, answer, flags=re.IGNORECASE)[-1]
    return re.split(_OPENS, answer, maxsplit=1, flags=re.IGNORECASE)[0]


def plain(text: str) -> str:
    """One form for one thing: full-width letters and marks as narrow ones, one kind of quotes and dashes, no emphasis.

    What stands in `\\boxed{}` or between `<answer>` and `</answer>` becomes a line "answer: ...".
    """
    text = unicodedata.normalize("NFKC", text).translate(_CHARACTERS)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    text = re.sub(r"\\(?:text|math)\w*\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\boxed\s*\{([^{}]*)\}|<answer>(.*?)</answer>", r"\nanswer: \1\2\n", text, flags=re.DOTALL)
    text = re.sub(r"(?<=[^\W_])[*~]+(?=[^\W_])", " ", text)
    return re.sub(r"[*`$#~]|\\[()\[\]]|(?<![^\W_])_+|_+(?![^\W_])", "", text).strip()


def in_english(text: str) -> str:
    """The Chinese words of `plain` text that say what is chosen, as English ones; all else stays."""
    return _CHINESE_WORD.sub(lambda found: _CHINESE[found[0]], text)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without marks; numbers whole, each character of Chinese or Japanese one.

    As VQA's evaluation has it, articles are left out, number words are digits, and `'s` is a word.
    """
    text = plain(text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\b(?:[^\W\d_]\.){2,}", lambda found: found[0].replace(".", ""), text)  # u.s.a.
    text = re.sub(rf"([{CJK}])|'s(?![^\W_])", lambda found: f" {found[0]} ", text)
    text = "".join(character if _in_word(text, index) else " " for index, character in enumerate(text))
    return vqa_words(found for word in text.split() if (found := word if word == "'s" else word.strip("'")))


def _in_word(text: str, index: int) -> bool:
    """Letters, digits and what belongs to them: an apostrophe, the mark within 3.5 or 5:30, the sign of -5."""
    character, before, after = text[index], text[index - 1 : index], text[index + 1 : index + 2]
    if character in ".:":
        return before.isdigit() and after.isdigit()
    if character == "-":
        return after.isdigit() and not before.strip()
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def says(answer: str, truth: str) -> bool:
    """Whether the words of the truth stand in the answer, in their order and as whole words."""
    wanted, found = words(truth), words(final_part(answer))
    return bool(wanted) and any(found[i : i + len(wanted)] == wanted for i in range(len(found)))
