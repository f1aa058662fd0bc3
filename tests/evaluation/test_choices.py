"""What models write in place of a letter: forms of their outputs, and of issues about the evaluation of these."""

import pytest

from avllm.evaluation.extraction import ChoiceRule

OPTIONS = ("a red car", "a blue car", "a dog", "nothing")
# fmt: off
FORMS = (
    "{}", "({})", "{}.", "{})", "[{}]", "**{}**", "\"{}\"", "{}:", "Option {}", "option {}.",
    "({}) because it moves", "{} is correct.", "{} is right, as the video shows", "{} is the answer.",
    "{} is the best answer.", "The answer is {}", "The answer is {}.", "The answer is: {}", "Answer: {}",
    "Answer: **{}**", "**Answer: {}**", "ANSWER: {}", "answer={}", "Ans. {}", "Final answer: {}",
    "My answer is ({}).", "The correct answer is option {}.", "The correct option is {}",
    "The best choice is {}, since it moves.", "The best option would be {}", "I choose {}", "I'd go with {}.",
    "I would say {} since it moves", "It must be {} because it moves left", "It is {}", "It's {}!", "So it's {}.",
    "Therefore, {}.", "Thus, the answer is {}", "{} because of the colour", "{} since the others do not fit",
    "{}, because it moves", "The car in {} matches", "{} matches the video best", "{} describes it.",
    "{} best describes the video", "{} seems right", "{} fits", "{} shows what happens", "In my view {} is correct",
    "I think {} is right", "I believe the answer is {}", "I am confident that {} is correct", "Definitely {}",
    "Probably {}.", "\\boxed{{{}}}", "The answer is $\\boxed{{\\text{{{}}}}}$", "<answer>{}</answer>",
    "<think>hmm, A? or B? not C, not D</think>{}", "<think>x</think>\n\nAnswer: {}", "答案是{}", "答案是{}。",
    "答案：{}",
    "选{}", "故选{}。", "应该选择{}", "正确答案为（{}）", "{}是正确的", "{}正确", "我认为是{}",
    "因此，答案是 {}。", "【答案】{}", "本题选{}", "选项{}",
    "“{}”", "The answer is <|begin_of_box|>{}<|end_of_box|>", "Answer: ${}", "{{\"answer\": \"{}\"}}",
    "{}\n\nExplanation: A, B, C and D were compared.", "Let me see.\nThe car moves.\n\n{}",
    "The first frame shows a street.\n**Final Answer: {}**", "### Answer\n{}", "Out of A, B, C and D, I pick {}.",
    "Between A and D, the answer is {}", "Is it A? Is it B? The answer is {}.", "{}!", "{} - I am sure",
    "I'm leaning towards {}", "the answer is {}, not E", "Looking at the video, {} is the most likely",
    "There is no doubt that {} is correct", "Without a doubt {}", "{} </s>",
)
SMALL = (
    "{}", "({})", "{}.", "{})", "[{}]", "the answer is {}", "the answer is {}.", "answer: {}", "option {}",
    "the correct option is {}.", "**{}**", "i choose {}.",
)
SENTENCES = (
    ("Not B", None), ("It is not D", None), ("Neither A nor B", None), ("Not A, B or C", None),
    ("It can't be C.", None), ("I don't think it is A", None), ("A is wrong", None), ("A and C do not fit", None),
    ("None of A, B, C or D", None), ("B is incorrect.", None), ("I would rule out B", None),
    ("Everything but A", None), ("It isn't A or B", None), ("A or B", None), ("A, B", None), ("A and B", None),
    ("Both A and C", None), ("A/B", None), ("The answer is A and B", None), ("(A) or (C)", None), ("", None),
    ("A car is moving", None), ("A man drives", None), ("A sports team", None), ("I see two people", None),
    ("Vitamin C is good", None), ("E", None), ("A blue bus is parked", None), ("a bus", None), ("It is a", None),
    ("Sorry, I can't help with that.", None), ("<think>B is right", None), ("A? B? C? D?", None),
    ("A is wrong, C is wrong. The answer is B", 1), ("**Answer: B**\n\nExplanation: A and C do not fit.", 1),
    ("Vitamin C is shown. The answer is D.", 3), ("B, not A", 1), ("B and not A", 1), ("B rather than A", 1),
    ("It's not A, it's B", 1), ("Not A but C", 2), ("not A. B.", 1), ("Unlike A, B shows the car turning.", 1),
    ("The answer is not A. It is B.", 1), ("A is wrong because the car is blue, so B", 1),
    ("A. Incorrect, it is blue.\nB. Correct, it is blue.\nC. Incorrect.\nD. Incorrect.", 1),
    ("A: no\nB: no\nC: yes\nD: no", 2), ("A? No. B? No. C? Yes.", 2), ("A ❌\nB ✅\nC ❌\nD ❌", 1),
    ("I considered (A), but it is incorrect. Final answer: D.", 3),
    ("The answer is B. Note that A is a common distractor.", 1),
    ("Answer: A\nAfter checking, I need to correct this.\nAnswer: B", 1),
    ("The correct answer is B. Here's why: A shows a red car, option B is correct because it is blue.", 1),
    ("B is more likely than A", 1), ("I cannot see well but B", 1), ("B instead of C", 1), ("不是A", None),
    ("A错误，B正确", 1), ("不选A，选C", 2), ("A和B都不对，选D", 3), ("排除A和B，答案是C", 2),
    ("选A还是选B？选B", 1), ("a red car", 0),
    ("A red car", 0), ("The blue car.", 1), ("It is a dog", 2), ("B. a blue car", 1), ("(C) a dog", 2),
    ("A red car and a dog", None), ("It is not a dog", None), ("It's not a dog but a red car", 0),
    ("A: a red car", 0), ("The answer is a dog.", 2), ("A. a red car is not seen. B. a blue car is seen.", 1),
    ("C. A dog is running", 2), ("B\nA red car would be wrong.", 1), ("Nothing", 3),
    ("The correct answer is a blue car.", 1), ("The video shows a street. A man crosses it. The answer is C", 2),
    ("D. None of the others", 3), ("With Michael B. Jordan in it, it is D", 3), ("Washington D.C. is shown", None),
    ("None of A, B, and C is right, so D", 3), ("All options except B are wrong", 1), ("A isn't right; it is C", 2),
    ("Since A and B are ruled out, C remains.", 2), ("A might be possible, but C is the best answer", 2),
    ("If it were A, the car would be red. It is blue, so B.", 1), ("The right choice here is C.", 2),
    ("Correct answer: (B)", 1), ("Selected option: D", 3), ("I'm going with A on this one.", 0),
    ("A - the first clip", 0), ("my choice: c", 2), ("Choice B is the one that fits.", 1),
    ("After watching the clip, A seems to be the most accurate description.", 0),
    ("A aligns with the events in the video.", 0), ("A would be the best match.", 0),
    ("A accurately describes the scene.", 0), ("A, as the dog never appears.", 0), ("A young man is cooking", None),
    ("A is not supported by the video; D is.", 3),
    ("Options A and B can be eliminated. C does not match either. Hence D.", 3),
    ("It's definitely not C. I'd pick A.", 0), ("The correct answer isn't A, B, or D. It's C.", 2),
    ("**B) a blue car**", 1), ("Answer: B) a blue car", 1), ("The final answer is $\\boxed{D}$.", 3),
    ("<think>\nMaybe A... wait, B.\n</think>\n\n**C**", 2), ("Based on the video, the answer is (A) a red car.", 0),
    ("The vehicle is a red car, so the answer is A.", 0), ("正确选项是C", 2), ("答案应该是 D", 3), ("B选项是对的", 1),
    ("C不正确，A正确", 0), ("Answer with the option's letter: B", 1),
    ("So the answer is B, because A and C show other things and D shows nothing.", 1), ("b. a blue car", 1),
    ("Hmm, A or C... I'd say C.", 2), ("I can't decide between A and B.", None), ("D (nothing)", 3),
    ("There's a dog in the video", 2), ("I do not see a red car, I see a blue car.", 1), ("No, it's B", 1),
    ("A cat", None), ("The options are A, B, C and D. The correct one is D.", 3),
    ("Neither B nor C nor D is right. A is.", 0), ("\"A\" is the correct choice.", 0), ("The letter is A", 0),
    ("Response: A", 0), ("A\n", 0), ("Out of the four, only C holds.", 2), ("A is likely, but B is certain", None),
    ("Considering the sequence of actions, option (D) is the most appropriate.", 3),
    ("The video clearly demonstrates B", 1), ("B: a blue car.", 1), ("C\nExplanation: the dog barks.", 2),
    ("Answer is C) a dog", 2), ("The correct choice: A.", 0), ("I'll go for A", 0), ("A it is.", 0),
    ("A, definitely.", 0), ("Choose A", 0), ("Choice: A", 0), ("A — the red one", 0), ("A\tbecause", 0),
    ("The best fit is A", 0), ("A has to be right", 0), ("A explains everything we see", 0),
    ("A (a red car) is what is shown.", 0), ("Options B, C, and D are all incorrect, leaving A.", 0),
    ("A is incorrect. B is incorrect. C is incorrect. Therefore D.", 3), ("It can only be D", 3),
    ("I'm not sure, but I think it's C.", 2), ("Most likely C", 2), ("C?", 2), ("I guess B", 1),
    ("My best guess would be B.", 1), ("B, I think.", 1), ("Not sure. Maybe D", 3),
    ("It could be A or D, but D is more plausible", None), ("The answer: b", 1), ("the correct option is (d)", 3),
    ("Answer: c.", 2), ("A tall man in a hat", None), ("A woman is holding a red bag.", None),
    ("Cannot be determined", None), ("None of the above", None), ("All of the above", None), ("A, B, C, D", None),
    ("The answer could be B or C.", None), ("D is not correct.", None), ("Definitely not A.", None),
    ("a BLUE car", 1), ("The answer is \"a dog\"", 2), ("I see the blue car turning left", 1),
    ("There is no red car; there is a dog.", 2), ("The car is blue", None), ("综上所述，本题正确答案为 D", 3),
    ("选择B。因为A是错误的", 1), ("A选项正确，其他选项错误", 0), ("我选C", 2), ("不是B也不是C", None),
    ("正解は C です", 2), ("Réponse : B", 1),
    ("Die Antwort ist A.", 0), ("La respuesta correcta es A", 0),
    ("<think>\nThe answer is A\n</think>\n<answer>C</answer>", 2), ("<think> long thought The answer is A", None),
    ("Sure! The answer is **C**: a dog.", 2), ("**C**: a dog", 2), ("__C__", 2), ("Final Answer:\n\nB", 1),
    ("The statement in B is true", 1), ("B is true, while A and C are false", 1), ("Both B and C are wrong; A.", 0),
    ("I eliminate A, B and D. The answer must be C.", 2),
    ("Not C.", None), ("It is not B.", None), ("It isn't C", None), ("Neither C nor D", None),
    ("neither b nor d", None), ("None of A, C", None), ("I would not choose B.", None), ("D cannot be right.", None),
    ("C is not the answer.", None), ("The answer is not C.", None), ("Anything but D", None),
    ("definitely not b", None), ("A can't be it", None), ("Not (B)", None), ("not option D", None),
    ("B is wrong. The answer is A", 0), ("C is wrong, D is wrong. The answer is A.", 0),
    ("D is incorrect; the correct answer is C", 2), ("A is wrong. B.", 1), ("A: wrong. B: right.", 1),
    ("Answer: A is out, so C", 2), ("It's not B. It's D.", 3), ("not A but D", 3), ("A is false, B is true", 1),
    ("C is impossible since the dog sits. A.", 0), ("Option A is ruled out, option B is the answer", 1),
    ("Not A, not B, not C: D", 3), ("Not A or B. C.", 2), ("A is what we see", 0), ("A shows exactly that", 0),
    ("A makes sense", 0), ("A looks right to me", 0), ("I'd say A as it fits", 0), ("A would fit", 0),
    ("A could be it", 0), ("The scene in A fits", 0), ("The answer must be A", 0), ("A should be chosen", 0),
    ("A, obviously", 0), ("A. The car is red.", 0), ("A then", 0), ("clearly A", 0), ("A because a dog runs", 0),
    ("A for the red car", 0), ("A corresponds to the video", 0), ("A was shown", 0), ("I pick A over B", 0),
    ("A, not B", 0), ("A wins", 0), ("The clip matches A", 0), ("It must be A because a man runs", 0),
    ("A depicts it", 0), ("A happened first", 0), ("A has the best fit", 0), ("A dog runs across the street", 2),
    ("A car drives by", None), ("A big red thing", None), ("A few people", None), ("A person is walking a dog", 2),
    ("A blue car is seen in the video.", 1), ("A group of people", None), ("A is a red car", 0),
    ("A glass of water", None), ("A bus stops", None), ("A lot happens", None),
    ("<think>The answer is C</think>The answer is A", 0), ("<think>B</think>", None), ("</think>D", 3),
    ("<thinking>A or B</thinking>\nC", 2), ("reasoning: A no, B no.</think>\n\nC", 2), ("答案为B", 1),
    ("答案是 (C)", 2), ("正确答案：D", 3), ("我选择A", 0), ("选C，因为车是蓝色的", 2), ("应该是B。", 1),
    ("答案不是A，是B", 1), ("B。", 1), ("Ｂ", 1), ("（Ｃ）", 2), ("选项A正确", 0), ("A和B", None),
    ("答案是A或者B", None), ("A不对，B不对，C对", 2), ("最佳答案是D", 3), ("A：红色的车", 0), ("所以选A", 0),
    ("故答案为：C", 2), ("A。因为车是红色的", 0), ("Answer: (A)\nReason: B shows a blue car and C shows a dog.", 0),
    ("B\n\nA: the car is red.\nC: there is no dog.", 1), ("Answer - D", 3),
    ("The answer is option (b) a blue car.", 1), ("It's either A or B, I choose B", 1),
    ("My answer: **B. a blue car**", 1), ("Choice (C) is the correct one.", 2),
    ("I think that the answer is B, not C.", 1), ("The answer should be D because A, B and C are not shown", 3),
    ("Only B is consistent with the video.", 1), ("Correct: A", 0), ("A) and not B)", 0),
    ("Out of A and B, B is better", 1), ("I would choose (B) rather than (A).", 1),
    ("The options A and C are similar but C is correct", 2), ("B or C? C.", 2),
    ("First I thought A, but the answer is B", 1), ("Initially A seems right, however B is correct.", 1),
    ("All but B are wrong.", 1), ("A and B are both wrong", None), ("Either B or D", None), ("A & B", None),
    ("(A)(B)", None), ("B and C are correct", None),
)
OF_OPTIONS = (
    (('yes', 'no'), (
        ("Yes. There is no doubt.", 0), ("No, he is not", 1), ("B. No", 1), ("A. Yes", 0), ("yes", 0), ("No", 1),
        ("It is not", 1), ("A", 0), ("The answer is no", 1), ("I don't think so", 1), ("A. no", 0), ("Not A", None),
        ("(B)", 1), ("maybe", None),
    )),
    (('Yes, he does', 'No, he does not', 'It cannot be told'), (
        ("No, he does not.", 1), ("B. No, he does not", 1), ("C. It cannot be told", 2), ("Yes, he does", 0),
        ("No", None),
    )),
    (('1', '2', '3', '4'), (
        ("2", 1), ("2.", 1), ("The answer is 3", 2), ("There are 4 cars", 3), ("B", 1), ("10", None), ("3.5", None),
        ("B. 2", 1), ("2 or 3", None), ("-2", None), ("two", None), ("(2)", 1),
    )),
    (('left', 'right', 'up'), (
        ("It moves to the right.", 1), ("B is right", 1), ("right", 1), ("A is right", 0), ("C is right", 2),
        ("The right answer is A", 0), ("upwards", None), ("left to right", None), ("A, since it moves left", 0),
    )),
    (('Team A wins', 'Team B wins', 'Draw'), (
        ("Team B wins", 1), ("B", 1), ("Team B wins the match", 1), ("The answer is A", 0), ("Team A", None),
    )),
    (('sure', 'not sure'), (
        ("I am not sure", 1), ("not sure", 1), ("sure", 0),
    )),
    (('红色', '蓝色', '绿色'), (
        ("是蓝色的", 1), ("蓝色", 1), ("红色或蓝色", None), ("答案是B", 1), ("不是红色，是蓝色", 1),
    )),
    (('The man opens the door.', 'The man closes the door.', 'The man does not move.'), (
        ("The man does not move", 2), ("C. The man does not move.", 2), ("The man closes the door, then leaves.", 1),
        ("(A) The man opens the door.", 0), ("C: he does not move at all", 2),
        ("the man opens the door and the man closes the door", None),
    )),
    (('$5', '$10', '$15'), (
        ("$10", 1), ("It costs 10 dollars", 1),
    )),
    (('cat', 'dog', 'both A and B', 'neither'), (
        ("C", 2), ("both A and B", 2), ("C. both A and B", 2), ("The answer is C", 2), ("neither", 3),
    )),
    (('A', 'B', 'C'), (
        ("B", 1), ("the answer is B", 1),
    )),
    (('C', 'B', 'A'), (
        ("A", 2), ("C", 0),
    )),
    (('a man', 'a woman', 'a man and a woman'), (
        ("a man and a woman", 2), ("A man", 0), ("a woman", 1), ("It's a man.", 0), ("the woman", 1),
    )),
    (('none', 'one', 'two'), (
        ("none", 0), ("There are two of them", 2), ("None.", 0), ("one", 1),
    )),
    (('True', 'False'), (
        ("True", 0), ("False.", 1), ("That is true", 0), ("It is false", 1), ("A", 0),
    )),
    (('opt0', 'opt1', 'opt2', 'opt3', 'opt4', 'opt5', 'opt6', 'opt7', 'opt8', 'opt9'), (
        ("I", 8), ("I think B", 1), ("The answer is I", 8), ("I is correct", 8), ("J", 9), ("I think opt3", 3),
        ("I am sure it is (I).", 8), ("I.", 8), ("option I because", 8),
    )),
    (('Yes', 'No', 'Not mentioned'), (
        ("Not mentioned", 2), ("C", 2), ("No.", 1),
    )),
    (('3.5 m', '4 m'), (
        ("3.5 m", 0), ("about 4 m", 1),
    )),
    (('café', 'bar'), (
        ("Café", 0),
    )),
    ((
        "He opens the door and leaves.", "He closes the window.", "He sits down on the chair.",
        "He does not do anything.",
    ), (
        ("He opens the door and leaves.", 0), ("B. He closes the window.", 1),
        ("After entering, the man sits down on the chair.", None), ("He sits down on the chair", 2),
        ("The man closes the window, so the answer is B.", 1), ("D: He does not do anything.", 3),
        ("(D) He does not do anything", 3),
        ("A. He opens the door and leaves. This is clear from the first frames.", 0),
        ("In the video, he does not do anything.", 3), ("C, because he is tired and does not move", 2),
        ("The answer is A because he does not sit down on the chair.", 0),
        ("Option A: He opens the door and leaves\nOption B: He closes the window\nThe correct one is Option B.", 1),
    )),
    (("2", "3", "4", "5"), (
        ("There are three people, so B", 1), ("3 people", 1), ("The answer is 4.", 2), ("C. 4", 2),
        ("I count 5 in total", 3), ("2 or 3", None), ("3.", 1), ("I see 2 cars and 1 dog. The answer is A", 0),
        ("B", 1), ("5:30", None), ("Option 2", 0),
    )),
    (("Red", "Blue", "Green", "Yellow", "Black"), (
        ("E", 4), ("e", 4), ("The ball is blue.", 1), ("It's a yellow ball", 3), ("E. Black", 4), ("black", 4),
        ("Not red", None), ("It is green, not blue.", 2), ("The answer is E: Black", 4), ("red, then blue", None),
        ("(E)", 4), ("E is correct", 4), ("I guess it's black.", 4), ("Neither red nor blue", None), ("F", None),
    )),
    (("indoors", "outdoors"), (
        ("outdoors", 1), ("It was filmed indoors.", 0), ("B", 1), ("The scene is outdoors, as there are trees", 1),
        ("not indoors", None), ("It's not indoors but outdoors", 1), ("A. indoors", 0),
    )),
    (("the dog", "the cat", "both", "none"), (
        ("Both", 2), ("both of them", 2), ("the cat.", 1), ("C", 2), ("D. none", 3), ("The cat jumps first", 1),
    )),
    (("before", "after", "at the same time"), (
        ("At the same time.", 2), ("after", 1), ("It happens before the bell", 0), ("C. At the same time", 2),
        ("before or after", None),
    )),
    (("guitar", "piano", "drums", "violin"), (
        ("**Guitar:** acoustic", 0), ("The sound is that of a piano", 1), ("I hear drums…", 2), ("“violin”", 3),
        ("guitar and drums", None), ("No guitar, it is a piano", 1), ("The instrument is not a guitar", None),
        ("It sounds like a Violin!", 3),
    )),
)
# fmt: on


@pytest.mark.parametrize("form", FORMS)
def test_every_letter_is_read_alike(form):
    assert [ChoiceRule().choose(form.format(letter), OPTIONS) for letter in "ABCD"] == [0, 1, 2, 3]


@pytest.mark.parametrize("form", SMALL)
def test_small_letters_are_read_where_they_are_no_words(form):
    assert [ChoiceRule().choose(form.format(letter), OPTIONS) for letter in "abcd"] == [0, 1, 2, 3]


@pytest.mark.parametrize(("output", "chosen"), SENTENCES)
def test_what_is_announced_counts_and_what_is_ruled_out_does_not(output, chosen):
    assert ChoiceRule().choose(output, OPTIONS) == chosen


@pytest.mark.parametrize(("options", "output", "chosen"), [(o, *case) for o, cases in OF_OPTIONS for case in cases])
def test_options_of_all_kinds_are_found_by_their_texts(options, output, chosen):
    assert ChoiceRule().choose(output, options) == chosen


def test_letters_alone_count_where_texts_are_not_searched():
    rule = ChoiceRule(searches_text=False)
    assert [rule.choose(text, OPTIONS) for text in ("It is a dog", "C. a dog", "a dog")] == [None, 2, 2]
    assert ChoiceRule(digits_as_words=True).choose("There are two.", ("1", "2")) == 1
