"""The words by which answers say what they choose, deny and affirm; `choosing` and `mentions` say how they are read."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs that join an option to what is said of it.
IS = _words("is are was were be been being isn't aren't wasn't weren't seems seem looks look appears appear remains")
MAY = _words("will can may might")  # after the article A these are nouns
HELPS = MAY | _words(
    "has have had does do did could would should must cannot can't doesn't don't didn't won't wouldn't couldn't "
    "shouldn't hasn't"
)
SKIPPED = _words("most more also only best clearly still just very really quite then probably")
# What the letter of an option may be called.
CALLED = _words("option options choice choices letter answer statement")

# After the article A there is never one of these, nor a verb in -s; after the letter there is.
NEVER_AFTER_ARTICLE = IS | (HELPS - MAY) | _words(
    "and or nor but because since as so where which that who if than though although however therefore due based for "
    "in on at of with by from to into over rather not the this these those it they he she we you his her their its "
    "there here alone too also matched fit showed described happened occurred appeared seemed came i"
)  # fmt: skip
NOUNS_IN_S = _words("sports series species canvas gas news clothes goods christmas atlas lens jeans glasses arms")
# "Vitamin C", "Team B", "C major": not the letter of an option.
BEFORE_NAMES = _words(
    "vitamin hepatitis plan team type grade class group person player section part point gate building block room "
    "platform terminal line channel appendix row column seat stage zone level model flight route exit track"
)
KEYS = _words("major minor flat sharp")

# Before an option these rule it out; after it the words of WRONG do.
NOT = _words(
    "not never neither nor none no cannot without except excluding unlike instead than eliminate eliminated "
    "eliminating exclude excluded reject rejected discard wrong incorrect false dont doesnt isnt cant"
)
WRONG = _words(
    "wrong incorrect false inaccurate unlikely impossible implausible excluded eliminated discarded rejected invalid "
    "irrelevant unsupported misleading mistaken fail fails contradict contradicts lacks contradicted inconsistent "
    "distractor"
)
RIGHT = _words("correct right true answer best accurate likely likeliest appropriate better choice one suitable")
# "B: not visible" speaks of the option, "B: not moving" may be its text in other words.
NOT_SO = RIGHT | _words("possible visible shown supported the this it consistent mentioned present seen")

# A clause begins at one of these words and at any mark; what is said of an option ends at STOPS, too.
OPENS = _words("but because since so therefore thus hence although though while whereas however if unless as when")
STOPS = _words("that which who where and or")

# Words that announce an option, and those that may stand between them and it.
ANSWERS = _words("answer answers ans solution verdict conclusion selection pick guess response")
CHOOSES = _words(
    "choose chose chosen choosing select selected selecting picked picking say guess opt settle leaning lean vote "
    "conclude prefer go going went determine deduce infer bet think believe suppose"
)
CONCLUDES = _words("so therefore thus hence finally overall ultimately consequently accordingly")
LINKS = IS | CALLED | SKIPPED | _words(
    "it it's that's that would will should must has have to the my our your final correct right likely proper one "
    "appropriate indeed also here simply as follows below in with for on towards toward favor favour of this question "
    "i we i'd i'll am both"
)  # fmt: skip
