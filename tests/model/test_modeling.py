"""The composed model: loss, generation, saving, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from avllm.errors import CheckpointError, NumericError
from avllm.model import AvllmForConditionalGeneration
from tests.model.tiny import AUDIO, VIDEO, frames, segments, tiny_model

IDS = torch.tensor([[1, VIDEO, VIDEO, VIDEO, 5, 6, 7, 8], [1, AUDIO, AUDIO, 9, 9, 5, 6, 4]])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def media():
    torch.manual_seed(1)
    return {"video": frames(1, 4), "audio": segments(1, 3)}


def test_loss_is_that_of_the_decoder_on_the_spliced_embeddings(model):
    labels = IDS.masked_fill((IDS >= 300) | (IDS < 6), -100)

    out = model(IDS, labels=labels, media=media())

    logits = model.decoder(inputs_embeds=model.embed(IDS, media())).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert out.logits.shape[1] == 5  # of 8 positions, those that predict a label of some row


def test_num_items_replaces_the_number_of_labels(model):
    labels = IDS.masked_fill(IDS >= 300, -100)
    mean = model(IDS, labels=labels, media=media()).loss
    summed = model(IDS, labels=labels, media=media(), num_items_in_batch=1).loss
    assert summed.item() == pytest.approx(mean.item() * int((labels[:, 1:] != -100).sum()), rel=1e-5)


def test_an_uncounted_id_is_neither_right_nor_wrong(model):
    labels = IDS.masked_fill(IDS >= 300, -100)
    out = model(IDS, labels=labels, media=media())
    wrong = int(out.logits[0, 0].argmax())
    aside, none = torch.full_like(labels, wrong), torch.full_like(labels, -100)

    loss = model(IDS, labels=labels, media=media(), uncounted=aside).loss

    targets = F.pad(labels[:, 1:], (0, 1), value=-100)
    targets = targets[:, (targets != -100).any(0)]
    without = out.logits.index_fill(-1, torch.tensor([wrong]), -torch.inf)
    assert loss.item() == pytest.approx(F.cross_entropy(without.mT, targets).item(), rel=1e-5)
    assert wrong not in labels
    assert loss < out.loss
    assert torch.equal(model(IDS, labels=labels, media=media(), uncounted=none).loss, out.loss)


def test_features_stand_for_media(model):
    given = media()
    features = {name: model.branches[name].features(clip) for name, clip in given.items()}
    assert features["video"].shape == (1, 4, 2, 16)
    assert torch.equal(model.embed(IDS, features=features), model.embed(IDS, given))


def test_clips_of_different_length_go_in_a_list(model):
    ids = torch.tensor([[1, VIDEO, VIDEO, VIDEO, 5], [1, VIDEO, VIDEO, VIDEO, 5]])
    clip, image = frames(4), frames(1)

    both = model.embed(ids, {"video": [clip, image]})

    assert torch.allclose(both[:1], model.embed(ids[:1], {"video": clip[None]}), atol=1e-6)
    assert torch.allclose(both[1:], model.embed(ids[1:], {"video": image[None]}), atol=1e-6)


def test_a_branch_of_sound_learns_from_pictures(model):
    branch = model.branches["audio"]
    pictures = branch.features(frames(1, 4), "vision")
    assert pictures.norm(dim=-1).flatten().tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    branch.modality = "vision"
    try:
        tokens = model.branch_tokens("audio", frames(1, 4), None)
    finally:
        branch.modality = "own"
    assert tokens.shape == (2, 32)


def test_left_padded_rows_compute_what_they_do_alone(model):
    long, short = torch.tensor([[1, 9, 8, 7, 6, 5]]), torch.tensor([[1, 4, 3]])
    batch = torch.cat([long, F.pad(short, (3, 0))])
    mask = torch.tensor([[1] * 6, [0, 0, 0, 1, 1, 1]])

    logits = model(batch, attention_mask=mask).logits

    assert torch.allclose(logits[1, 3:], model(short).logits[0], atol=1e-4)
    rows = model.generate(batch, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert rows[0].tolist() == model.generate(long, max_new_tokens=6, do_sample=False)[0].tolist()
    assert rows[1].tolist() == model.generate(short, max_new_tokens=6, do_sample=False)[0].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
        {"do_sample": False, "cache_implementation": "static"},
        {"do_sample": False, "use_cache": False},
        {"num_beams": 2, "num_return_sequences": 2},
    ],
)
def test_generates_with_the_options_of_transformers(model, options):
    rows = model.generate(IDS, media=media(), max_new_tokens=4, min_new_tokens=4, **options)
    assert rows.shape == (2 * options.get("num_return_sequences", 1), 4)
    assert int(rows.max()) < 300


def test_every_cache_gives_the_same_tokens(model):
    options = {"media": media(), "max_new_tokens": 6, "do_sample": False}
    expected = model.generate(IDS, **options).tolist()
    assert model.generate(IDS, use_cache=False, **options).tolist() == expected
    assert model.generate(IDS, cache_implementation="static", **options).tolist() == expected


def test_a_saved_folder_opens_again_exactly(model, tmp_path):
    model.save_pretrained(tmp_path)

    again = AvllmForConditionalGeneration.from_pretrained(tmp_path)

    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(again.embed(IDS, media()), model.embed(IDS, media()))
    assert AutoConfig.from_pretrained(tmp_path).slot_ids() == {"audio": AUDIO, "video": VIDEO}
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), AvllmForConditionalGeneration)


def test_a_missing_weight_is_named(tmp_path):
    model = tiny_model()
    state = model.state_dict()
    state.pop("branches.video.connector.projection.bias")
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match=r"missing: branches\.video\.connector\.projection\.bias"):
        AvllmForConditionalGeneration.from_pretrained(tmp_path)


def test_logits_that_are_no_numbers_stop_the_generation():
    model = tiny_model()
    model.decoder.lm_head.weight.data[7] = float("nan")
    with pytest.raises(NumericError, match="logits of new token 1 are not finite"):
        model.generate(torch.tensor([[1, 5]]), max_new_tokens=3)


def test_refuses_media_that_the_prompts_do_not_hold(model):
    with pytest.raises(ValueError, match="0 media slots, encoders gave 3 tokens"):
        model(torch.tensor([[1, 5]]), media={"video": frames(1, 4)})
    with pytest.raises(ValueError, match="has no such branch, it has: audio, video"):
        model(torch.tensor([[1, 5]]), media={"depth": frames(1, 4)})
    with pytest.raises(ValueError, match="3 media slots, encoders gave 0 tokens"):
        model(IDS[:1])


def test_gradients_reach_the_connector_through_a_frozen_decoder():
    model = tiny_model()
    model.requires_grad_(False)
    model.branches["video"].connector.projection.requires_grad_(True)
    labels = IDS[:1].masked_fill(IDS[:1] >= 300, -100)

    model(IDS[:1], labels=labels, media={"video": frames(1, 4)}).loss.backward()

    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {f"branches.video.connector.projection.{w}" for w in ("weight", "bias")}
