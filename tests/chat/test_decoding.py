"""The loop of ours against that of `transformers`, row by row."""

from dataclasses import replace

import pytest
import torch
from transformers.generation import StoppingCriteria

from avllm.chat import Request
from avllm.chat.layout import lay_out_for_cpu
from avllm.model.cache import CACHE, growing_cache
from tests.model.tiny import tiny_model

REQUESTS = [
    Request(question="what?", video="clip", max_new_tokens=9),
    Request(question="is it a rather long question that needs padding?", video="clip", max_new_tokens=3),
    Request(question="hm", max_new_tokens=14),
    Request(question="what?", video="clip", audio="sound", max_new_tokens=1),
    Request(question="and here?", image="picture", max_new_tokens=6),
]


def prompts(assistant):
    torch.manual_seed(0)
    return [torch.randn(1, length, 32) * 3 for length in (7, 30, 12)]


def padded(rows):
    longest = max(row.shape[1] for row in rows)
    embeds = torch.cat([torch.nn.functional.pad(row, (0, 0, longest - row.shape[1], 0)) for row in rows])
    mask = torch.tensor([[0] * (longest - row.shape[1]) + [1] * row.shape[1] for row in rows])
    return embeds, mask


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 12},
        {"bad_words_ids": [[40], [77]]},
        {"suppress_tokens": list(range(3, 150))},
    ],
)
def test_writes_what_transformers_writes(assistant, options):
    rows = prompts(assistant)
    expected = [
        assistant.model.decoder.generate(
            inputs_embeds=row, do_sample=False, max_new_tokens=12, pad_token_id=0, **options
        )[0].tolist()
        for row in rows
    ]
    assert [assistant.generate(row, max_new_tokens=12, **options).ids[0] for row in rows] == expected
    embeds, mask = padded(rows)
    assert assistant.generate(embeds, attention_mask=mask, max_new_tokens=12, **options).ids == expected


def test_a_decoder_that_does_not_keep_all_positions_reads_padded_prompts(assistant, monkeypatch):
    embeds, mask = padded(prompts(assistant))
    expected = assistant.generate(embeds, attention_mask=mask, limits=[12, 3, 7]).ids
    monkeypatch.setattr("avllm.chat.decoding.grows", lambda cache: False)
    assert assistant.generate(embeds, attention_mask=mask, limits=[12, 3, 7]).ids == expected


def test_each_row_has_its_own_limit_and_is_what_it_is_alone(assistant):
    alone = [assistant.answers([item])[0].answer for item in REQUESTS]
    assert [reply.answer for reply in assistant.answers(REQUESTS)] == alone
    assert [reply.answer for reply in assistant.answers(REQUESTS[::-1])] == alone[::-1]
    longer = [assistant.answers([replace(item, max_new_tokens=20)])[0].answer for item in REQUESTS]
    assert all(whole.startswith(answer) and whole != answer for whole, answer in zip(longer, alone, strict=True))


def test_a_row_that_has_ended_costs_nothing_and_a_shared_start_is_read_once(assistant):
    seen = []
    forward = assistant.model.decoder.model.forward

    def counted(*args, **kwargs):
        given = kwargs.get("inputs_embeds") if kwargs.get("inputs_embeds") is not None else kwargs["input_ids"]
        seen.append(tuple(given.shape[:2]))
        return forward(*args, **kwargs)

    assistant.model.decoder.model.forward = counted
    same = [Request(question=f"what {word}?", video="clip", max_new_tokens=n) for word, n in (("a", 2), ("b", 5))]
    assistant.answers(same)
    first, second, *steps = seen
    assert second[1] < len("b?") + first[1] / 2
    assert [rows for rows, _ in steps] == [2, 1, 1, 1]


def test_a_seed_draws_the_same_in_any_batch(assistant):
    options = {"do_sample": True, "temperature": 2.0, "seed": 5}
    alone = [assistant.answers([item], **options)[0].answer for item in REQUESTS]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert [reply.answer for reply in assistant.answers(REQUESTS, **options)] == alone
    assert torch.equal(torch.rand(1), expected)
    assert alone != [reply.answer for reply in assistant.answers(REQUESTS, **{**options, "seed": 6})]


def test_a_cache_that_holds_the_start_of_the_prompt_changes_nothing(assistant):
    (row, *_) = prompts(assistant)
    cache = growing_cache(assistant.model.config.text_config)
    expected = assistant.generate(row, max_new_tokens=8).ids
    with torch.no_grad():
        assistant.model.decoder(inputs_embeds=row[:, :4], **{CACHE: cache})
    assert assistant.generate(row, cache=cache, max_new_tokens=8).ids == expected


def test_stopping_criteria_of_the_caller_end_single_rows(assistant):
    class Second(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([input_ids.shape[1] >= 2] * len(input_ids))

    embeds, mask = padded(prompts(assistant))
    out = assistant.generate(embeds, attention_mask=mask, stopping_criteria=[Second()])
    assert [len(ids) for ids in out.ids] == [2, 2, 2]


def test_the_order_of_weights_in_memory_changes_neither_names_nor_values(tmp_path):
    from safetensors.torch import load_file

    model, ordered = tiny_model(), tiny_model()
    lay_out_for_cpu(ordered)
    assert not ordered.decoder.lm_head.weight.is_contiguous()
    for (name, before), (other, after) in zip(model.state_dict().items(), ordered.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(before, after)
    ids = torch.arange(3, 40)[None]
    assert torch.allclose(model(input_ids=ids).logits, ordered(input_ids=ids).logits, atol=1e-4)
    ordered.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["decoder.lm_head.weight"], model.decoder.lm_head.weight)
