import pytest

from avllm.answers.yes_no import read_yes_no
from avllm.evaluation.scoring import Contains

# fmt: off
YES = (
    "Yes, he is.", "Yes. He is dancing.", "Yes! He is.", "**Yes**", "\"Yes\"", "Yes: he is", "(yes)",
    "Yes. There is no doubt.", "yes...", "Yeah", "Yep, that's right.", "YES", "  yes  ", "Yes - he is", "Yes—he is",
    "“Yes”", "‘Yes’", "Ｙｅｓ。", "是", "是的，他在跳舞。", "对", "没错", "<think>No? hmm no</think>Yes", "Answer: yes",
    "The answer is yes.", "The answer is: **Yes**", "My answer would be yes", "I think so.", "I believe so",
    "He is.", "It is", "There is no doubt that he is", "Without a doubt.", "Certainly!", "Of course.", "Definitely",
    "That is correct.", "Correct, he is.", "True", "True.", "Yes, it is not raining.", "Yes; no one else is there",
    "\\boxed{yes}", "<answer>Yes</answer>", "Sure.", "Yes, but not really dancing", "Answer yes or no: yes",
    "Not only he, but yes, all dance", "I'd say yes", "y", "Indeed, he is.", "yes\nno other person",
    "Yes (he is not sitting)", "[Yes]", "{\"answer\": \"yes\"}", "Absolutely.", "Undoubtedly", "答案是：是", "有的",
    "Is he dancing? Yes.", "No doubt about it, yes", "It does.", "Yes/True", "> Yes", "- Yes", "# Yes", "1. Yes",
    "Yes, there isn't any doubt",
)
NO = (
    "No.", "No. He is not.", "No, there are none.", "Nope", "Nah.", "no!", "**No**", "\"No\"", "(no)", "NO",
    "I don't think so", "It is not", "not really", "Not at all.", "There is no dog.", "No dog is visible.", "否",
    "不是", "不，他没有跳舞", "不对", "没有", "The answer is no.", "Answer: No\n\nYes would be wrong", "He isn't",
    "He is not dancing.", "The man isn’t dancing", "Absolutely not.", "Definitely not", "Of course not!", "Never.",
    "False", "False.", "That's incorrect.", "Incorrect.", "Neither of them", "Nobody is dancing",
    "<think>yes yes</think>\n\nNo", "I would say no.", "Final answer: no",
    "Yes, at first it looks so. But the final answer is no.", "n", "No; yes would be wrong", "He doesn't",
    "I do not believe so", "No—he sits", "答案：否。", "I can't see any dog.", "cannot", "It does not appear so.",
    "Not in this video.", "Unfortunately not", "no, yes is wrong", "That is not correct", "I see no dog", "None",
    "I'm afraid not", "Wrong.", "The dog is not visible in the video",
)
NEITHER = (
    "", "He is dancing.", "I don't know", "I am not sure.", "It is unclear", "Not sure", "Cannot be determined.",
    "I have no idea", "yes or no", "Maybe", "It is hard to say", "a bird", "<think>yes", "不确定", "无法判断",
    "There is not enough information to answer.", "Possibly", "I can't tell", "It's impossible to determine",
    "It is not clear", "Yes or no?", "nothing to answer, unknown", "对不起，我看不出", "Unanswerable",
)
# fmt: on


@pytest.mark.parametrize(
    ("answer", "said"), [(answer, said) for said, some in (("yes", YES), ("no", NO), ("", NEITHER)) for answer in some]
)
def test_the_first_word_that_decides_is_read_at_any_mark(answer, said):
    assert read_yes_no(answer) == said


def test_a_yes_is_right_where_yes_is_and_wrong_where_no_is():
    for answer in YES:
        assert [Contains().score(answer, {"accepted": [right]}).score for right in ("yes", "no", "Yes.")] == [1, 0, 1]
    assert Contains().score("是的，他在跳舞", {"accepted": ["是"]}).score == 1.0
    assert Contains().score("He turns right", {"accepted": ["right"]}).read_as == "he turns right"
