import pytest

from avllm.data.captions import clean_caption
from avllm.data.packed import PackedTexts


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A Man, riding a *horse* (fast)!  on the: beach...", "a man, riding a horse fast on the beach"),
        ('  HELLO #world; ok~ "quoted" \n', "hello world ok quoted"),
        ("It's a dog-friendly café & bar", "it's a dog-friendly café & bar"),
        ("a\tb   c\nd", "a\tb c\nd"),
        (" ".join(f"w{i}" for i in range(60)), " ".join(f"w{i}" for i in range(50))),
    ],
)
def test_cleans_as_published(raw, clean):
    assert clean_caption(raw) == clean


def test_packed_texts_come_back_as_they_were():
    texts = ["a", "", "café", "x" * 1000]

    packed = PackedTexts(iter(texts))

    assert [packed[i] for i in range(len(packed))] == texts
