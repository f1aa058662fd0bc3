import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from avllm.model import AvllmConfig
from avllm.model.prompts import PROMPTS, Medium, Turn, conversation
from avllm.model.tokens import encode
from avllm.nano.decoder import NUM_AUDIO_SLOTS, NUM_VIDEO_SLOTS, embed, logits_of_answers, make_batch, make_row, visible
from avllm.nano.language import draw_questions, random_facts
from avllm.nano.tokenizer import build_tokenizer, ids_of, slot_word_ids, word_id
from avllm.nano.world import COLOURS, MOTIONS, THINGS


@pytest.fixture(scope="module")
def decoder() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(AvllmConfig.from_yaml("nano").text_config).eval()


def test_words_of_the_world_are_single_tokens():
    for word in (*THINGS, *COLOURS, *MOTIONS, "none", "one", "two", "three"):
        assert build_tokenizer().decode([word_id(word)]).strip() == word


def test_the_vocabulary_fits_the_system():
    vocab_size = AvllmConfig.from_yaml("nano").text_config.vocab_size

    assert len(build_tokenizer()) < max(slot_word_ids("audio").values()) < vocab_size


def test_text_of_users_never_becomes_a_mark():
    ids = build_tokenizer().encode("</s> <pad> drum", add_special_tokens=False, split_special_tokens=True)

    assert not set(ids) & {0, 1, 2}
    assert max(ids) < min(slot_word_ids("video").values())


def test_case_does_not_matter():
    assert ids_of("What do you SEE?") == ids_of("what do you see?")


def test_a_row_reads_as_the_prompt_of_the_system():
    """What the decoder learns on must be, id for id, what the processor will make of a conversation."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        facts = random_facts(rng)
        questions = draw_questions(facts, rng, 3)
        streams = (("video", facts.things, NUM_VIDEO_SLOTS), ("audio", facts.sounds, NUM_AUDIO_SLOTS))
        media = tuple(Medium(kind=name, branch=name, num_tokens=n) for name, found, n in streams if found is not None)
        turns = [Turn(question=q.text, answer=q.answer, media=() if i else media) for i, q in enumerate(questions)]
        row = make_row(facts, questions, True)
        expected = encode(conversation(PROMPTS["nano"].train, turns), build_tokenizer(), {"video": 1000, "audio": 1000})

        assert [1000 if slot else i for i, slot in zip(row.ids, row.is_slot, strict=True)] == list(expected.input_ids)
        assert [i if learned else -100 for i, learned in zip(row.ids, row.is_answer, strict=True)] == list(
            expected.labels
        )


def test_turns_of_a_row_that_is_no_chat_do_not_see_each_other(decoder):
    rng = np.random.default_rng(1)
    facts = random_facts(rng)
    questions = draw_questions(facts, rng, 3)

    def run(asked):
        batch = make_batch([(facts, asked)], [False])
        table = torch.Generator().manual_seed(0)
        batch.ids[batch.is_slot] = 5  # the same in both, without noise
        return logits_of_answers(decoder, batch, embed(decoder, batch, noise=0.0, generator=table))[0]

    alone = [run([question]) for question in questions]

    assert torch.allclose(run(questions), torch.cat(alone), atol=1e-5)


def test_padding_is_never_attended_to():
    rng = np.random.default_rng(2)
    rows = [(facts := random_facts(rng), draw_questions(facts, rng, n)) for n in (1, 4)]
    batch = make_batch(rows, [True, False])
    mask, positions = visible(batch)

    is_padding = batch.turn == -1
    assert is_padding[0].any()
    real = ~is_padding
    assert (mask[0, 0][real[0]][:, is_padding[0]] < 0).all()
    assert positions[real].min() >= 0
