"""Messages and media to tensors."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from avllm.errors import ConfigError, DataError
from avllm.model import AvllmProcessor, Turn
from tests.model.tiny import AUDIO, VIDEO, tiny_model, tiny_processor


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())


def clip(num_frames: int) -> np.ndarray:
    """A clip that is as small as the system wants it, so that nothing is resized."""
    return np.arange(num_frames * 16 * 16 * 3, dtype=np.uint8).reshape(num_frames, 16, 16, 3)


def test_frames_are_normalised_as_published(processor):
    loaded = processor.read(clip(4), "video")
    assert loaded.values.shape == (4, 3, 16, 16)
    pixel = clip(4)[2, 5, 7, 1] / 255
    assert loaded.values[2, 1, 5, 7].item() == pytest.approx((pixel - 0.4578275) / 0.26130258, rel=1e-5)


def test_an_image_is_a_video_of_one_frame(processor):
    batch = processor(text="what?", image=clip(1)[0])
    assert batch["media"]["video"].shape == (1, 1, 3, 16, 16)
    assert (batch["input_ids"] == VIDEO).sum() == 3


def test_messages_make_turns_with_their_media(processor):
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "video", "video": clip(4)}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "a dog"},
        {"role": "user", "content": "sure?"},
    ]
    text = processor.apply_chat_template(messages, tokenize=False)
    batch = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text == f"human: {'<ImageHere>' * 3} what?\nassistant: a dog</s>\nhuman: sure?\nassistant:"
    assert batch["media"]["video"].shape == (1, 4, 3, 16, 16)
    assert set(batch) == {"input_ids", "attention_mask", "media"}


def test_conversations_are_padded_on_the_left_and_media_kept_in_order(processor):
    one = [{"role": "user", "content": [{"type": "video", "video": clip(4)}, {"type": "text", "text": "a"}]}]
    two = [{"role": "user", "content": [{"type": "image", "image": clip(1)[0]}, {"type": "text", "text": "longer"}]}]
    batch = processor([one, two])
    assert batch["attention_mask"][0].tolist().index(1) == 5
    assert batch["attention_mask"][1].all()
    assert [values.shape[0] for values in batch["media"]["video"]] == [4, 1]


def test_training_adds_labels(processor):
    messages = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a dog"}]
    batch = processor(messages, form="train", padding_side="right")
    learned = batch["labels"][batch["labels"] != -100]
    assert processor.tokenizer.decode(learned) == " a dog</s>"


def test_a_branch_of_sound_can_be_given_pictures(processor):
    loaded = processor.read(clip(3), "video", branch="audio")
    encoded = processor.encode([Turn(question="q", media=(processor.medium(loaded),))])
    assert encoded.input_ids.count(AUDIO) == 2
    assert loaded.values.shape == (3, 3, 16, 16)


def test_what_makes_no_conversation_is_named(processor):
    with pytest.raises(DataError, match="message role: got 'assistant' here"):
        processor([{"role": "assistant", "content": "x"}])
    with pytest.raises(DataError, match="content type: got 'smell', known are: video, image, audio, text"):
        processor([{"role": "user", "content": [{"type": "smell"}]}])
    with pytest.raises(ConfigError, match="this system has no depth branch; it has: video, audio"):
        processor.read(clip(1), "video", branch="depth")


def test_is_saved_with_the_model_and_opens_with_the_auto_class(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, AvllmProcessor)
    turns = [Turn(question="x </s> y", answer="z")]
    assert again.encode(turns) == processor.encode(turns)
    assert again.slot_ids == processor.slot_ids == {"audio": AUDIO, "video": VIDEO}


def test_a_batch_goes_through_the_model(processor):
    model = tiny_model()
    batch = processor(text="what?", video=clip(4))
    rows = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert isinstance(processor.answer(rows[0]), str)
    assert torch.equal(rows, model.generate(**batch, max_new_tokens=3, do_sample=False))
