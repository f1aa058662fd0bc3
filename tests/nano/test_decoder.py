import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from avllm.model import AvllmConfig
from avllm.model.prompts import PROMPTS, Medium, Turn, conversation
from avllm.model.tokens import encode
from avllm.nano.decoder import (
    NUM_AUDIO_SLOTS,
    NUM_VIDEO_SLOTS,
    ROWS,
    embed,
    lesson_at,
    logits_of_answers,
    make_batch,
    make_row,
    start_decoder,
    visible,
)
from avllm.nano.language import Facts, Question, draw_questions, random_facts
from avllm.nano.lines import pack
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


def test_a_word_of_a_question_finds_its_thing_and_its_colour_before_any_training():
    """The second head of the first layer hands the colour on to the word that names the thing."""
    torch.manual_seed(0)
    config = AvllmConfig.from_yaml("nano").text_config
    config._attn_implementation = "eager"
    decoder = LlamaForCausalLM(config).eval()
    start_decoder(decoder)
    facts = Facts(things=(("red", "bell", "still"), ("blue", "drone", "still")), sounds=("drum", "bell"))
    asked = Question(type="colour_of", text="color drone", answer="blue", accepted=())
    batch = make_batch([(facts, [asked])], [False], True)
    mask, positions = visible(batch)
    embedded = embed(decoder, batch, noise=0.0, generator=torch.Generator())
    with torch.no_grad():
        seen = decoder.model(
            inputs_embeds=embedded, attention_mask=mask, position_ids=positions, output_attentions=True
        ).attentions

    last = int((batch.ids[0] == word_id("drone")).nonzero()[-1])
    both = int((batch.more[0] == slot_word_ids("video")["drone"]).nonzero())
    assert int(seen[0][0, 1, last].argmax()) == both


def test_lessons_end_in_sentences_and_begin_with_bare_questions():
    lessons = [lesson_at(step, 1000) for step in range(1000)]

    assert set(lessons[:300]) == {"bare", "colours"}
    assert lessons[800:].count("sentences") > 130
    assert set(lessons) == set(ROWS)


def test_rows_that_share_a_line_compute_what_they_do_alone(decoder):
    rng = np.random.default_rng(3)
    rows = [(facts := random_facts(rng), draw_questions(facts, rng, n)) for n in (4, 1, 2, 1, 3, 1)]
    is_chat = [True, False, True, True, False, False]
    batch = make_batch(rows, is_chat)
    embedded = embed(decoder, batch, noise=0.2, generator=torch.Generator().manual_seed(0))
    mask, positions = visible(batch)
    with torch.no_grad():
        hidden = decoder.model(inputs_embeds=embedded, attention_mask=mask, position_ids=positions).last_hidden_state
        alone = decoder.lm_head(hidden[:, :-1][batch.is_answer[:, 1:]])
        shared, ids = logits_of_answers(decoder, batch, embedded)

    assert pack([len(make_row(*row, chat).ids) for row, chat in zip(rows, is_chat, strict=True)], 200)[2] < len(rows)
    assert ids.tolist() == batch.ids[batch.is_answer].tolist()
    assert torch.allclose(shared, alone, atol=1e-5)


def test_no_two_rows_stand_in_one_place():
    lengths = [5, 9, 2, 2, 7, 1]

    lines, starts, num_lines = pack(lengths, 9)

    taken = [(line, start + i) for line, start, n in zip(lines, starts, lengths, strict=True) for i in range(n)]
    assert len(set(taken)) == sum(lengths)
    assert max(place for _, place in taken) < 9
    assert num_lines == 3
