"""Captions against reference captions: ROUGE-L of one, CIDEr-D and BLEU of many."""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from avllm.evaluation.metrics import Mean

_ORDERS = range(1, 5)  # n-grams of CIDEr
_SIGMA = 6.0  # of CIDEr-D's penalty of length, in words
_BETA = 1.2  # ROUGE-L weighs recall by this, as the evaluation of MS COCO does
_DRAWS = 1000

Grams = Counter[tuple[str, ...]]
logger = logging.getLogger(__name__)


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+(?:'\w+)*", text.lower())


def rouge_l(answer: str, truths: Sequence[str]) -> float:
    """F of the longest common subsequence, with the best precision and recall over the references.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", in the form of the evaluation of MS COCO.
    """
    said, references = words(answer), [words(truth) for truth in truths]
    common = [(_common(said, right), len(right)) for right in references if right]
    precision = max((count / len(said) for count, _ in common), default=0.0) if said else 0.0
    recall = max((count / length for count, length in common), default=0.0)
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def cider_d(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each answer, from 0 to 10, with the document frequencies of these references.

    Source: Vedantam et al. (arXiv:1411.5726), equations 1 to 3 and section 8; words are those of `words`, where the
    evaluation of MS COCO has a tokeniser of its own.

    Args:
        answers: a caption each.
        truths: the references of each.
    """
    references = [[_grams(words(text)) for text in texts] for texts in truths]
    documents = Counter(gram for several in references for gram in {gram for one in several for gram in one})

    def rarity(gram: tuple[str, ...]) -> float:
        return math.log(len(references) / max(1, documents[gram]))

    scores = []
    for answer, several in zip(answers, references, strict=True):
        said = _grams(words(answer))
        found = [_length_penalty(said, right) * _cosine(said, right, rarity) for right in several]
        scores.append(10 * sum(found) / len(found) if found else 0.0)
    return scores


def bleu(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Mean | None:
    """BLEU-4 of all answers together, from 0 to 1, with sacrebleu's bootstrap interval; None without that package."""
    if find_spec("sacrebleu") is None:
        logger.warning("BLEU is left out, it needs the package sacrebleu: pip install 'avllm[eval]'")
        return None
    most = max(len(several) for several in truths)
    columns = [[several[index] if index < len(several) else None for several in truths] for index in range(most)]
    metric = import_module("sacrebleu.metrics").BLEU(lowercase=True)
    found = metric.corpus_score(list(answers), columns, n_bootstrap=_DRAWS if len(answers) > 1 else 1)
    middle, half = (found.score, 0.0) if len(answers) < 2 else (found._mean, found._ci)
    return Mean.near(found.score / 100, (middle - half) / 100, (middle + half) / 100, n=len(answers))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = row
        row = [0]
        for index, other in enumerate(second, start=1):
            row.append(before[index - 1] + 1 if word == other else max(before[index], row[-1]))
    return row[-1]


def _grams(text: Sequence[str]) -> Grams:
    return Counter(tuple(text[i : i + n]) for n in _ORDERS for i in range(len(text) - n + 1))


def _length_penalty(said: Grams, right: Grams) -> float:
    gap = sum(said[gram] for gram in said if len(gram) == 1) - sum(right[gram] for gram in right if len(gram) == 1)
    return math.exp(-(gap**2) / (2 * _SIGMA**2))


def _cosine(said: Grams, right: Grams, rarity: Callable[[tuple[str, ...]], float]) -> float:
    """Mean over the orders of the cosine of counts weighed by rarity; the answer's are clipped to the reference's."""
    total = 0.0
    for order in _ORDERS:
        mine, other = (
            {gram: count * rarity(gram) for gram, count in one.items() if len(gram) == order} for one in (said, right)
        )
        norms = math.hypot(*mine.values()) * math.hypot(*other.values())
        clipped = sum(min(mine[gram], weight) * weight for gram, weight in other.items() if gram in mine)
        total += clipped / norms if norms else 0.0
    return total / len(_ORDERS)
