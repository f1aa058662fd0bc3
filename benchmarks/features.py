"""What stored features are worth, and how well their making keeps a machine busy; collected by `benchmarks.train`.

The system is a Video-LLaMA of middle size with random weights: a ViT of 384 x 12 at 224 pixels, a Q-Former of 12
layers, one of 2 layers over the frames, a LLaMA of 512 x 8. Clips are 10 s of 640 x 360 at 30 frames/s, of which 8
frames are taken.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avllm.checkpoints.load import load_model
from avllm.data import Collate, Medium, Sample
from avllm.data.feature_work import Extractor, Item
from avllm.data.features import FeatureStore, Reading, begin
from avllm.media import read_ahead, write_video
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor
from avllm.training import freeze
from benchmarks.common import Figure, interleaved, median, seconds
from benchmarks.decode import FPS, moving

MIDDLE = (
    *("branches.video.encoder.width=384", "branches.video.encoder.depth=12", "branches.video.encoder.num_heads=6"),
    *("branches.audio.encoder.audio.depth=1", "branches.audio.encoder.vision.depth=1"),
    *("decoder.hidden_size=512", "decoder.intermediate_size=1376", "decoder.num_hidden_layers=8"),
    *("decoder.num_attention_heads=8", "decoder.num_key_value_heads=8", "decoder.vocab_size=32064"),
)
TRAINED = [f"branches.video.connector.{part}" for part in ("query_tokens", "frame_embedding", "qformer", "projection")]
TEXT_TOKENS, BATCH, CLIPS = 48, 4, 8


def features_figures(rounds: int) -> dict[str, Figure]:
    """Both comparisons, on clips made here."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        media = make_clips(Path(folder), CLIPS)
        model, processor = middle_size()
        figures = step_figures(model, processor, media[:BATCH], Path(folder), rounds)
        figures |= pipeline_figures("middle", model, processor, media, Path(folder), rounds)
        nano = load_model("nano", device="cpu")
        many = list(itertools.islice(itertools.cycle(media), 4 * CLIPS))
        return figures | pipeline_figures("nano", *nano, many, Path(folder), rounds)


def step_figures(model: Any, processor: Any, media: list[Medium], folder: Path, rounds: int) -> dict[str, Figure]:
    """A step of stage 1 from frames, and from what the frozen part made of them."""
    store = FeatureStore(store_of(model, processor, media, folder / "step"), processor)
    freeze(model, TRAINED)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def batch(kind: str, read: Callable[[Medium], torch.Tensor]) -> dict[str, Any]:
        ids = torch.cat([torch.full((32,), processor.slot_ids["video"]), torch.arange(TEXT_TOKENS) + 5])
        labels = ids.masked_fill(ids >= processor.vocab_size, -100)
        made = Collate()(
            [Sample(id="", input_ids=ids, labels=labels, **{kind: {"video": [read(medium)]}}) for medium in media]
        )
        return {key: value for key, value in made.items() if key not in ("ids", "unreadable")}

    def from_media() -> dict[str, Any]:
        return batch("media", lambda medium: processor.read(medium.source, "video").values)

    def from_store() -> dict[str, Any]:
        return batch("features", lambda medium: store.load("video", medium).values)

    def step(inputs: dict[str, Any]) -> None:
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    whole, stored = from_media(), from_store()
    runs = interleaved(
        {
            "whole": lambda: seconds(lambda: step(whole)),
            "stored": lambda: seconds(lambda: step(stored)),
            "read_media": lambda: seconds(from_media),
            "read_store": lambda: seconds(from_store),
        },
        rounds + 1,
    )
    runs = {name: found[1:] for name, found in runs.items()}  # the first round warms up
    rows = list(zip(*runs.values(), strict=True))
    ratio = median([whole / stored for whole, stored, _, _ in rows])
    with_reading = median([(whole + media) / (stored + read) for whole, stored, media, read in rows])
    note = f"{median(runs['whole']):.2f} s and {median(runs['stored']):.2f} s for {BATCH} clips, media read already"
    reading = f"reading took {median(runs['read_media']):.2f} s and {median(runs['read_store']):.3f} s"
    return {
        "step_on_features": Figure(value=ratio, goal=7.0, against="the same step from frames", note=note),
        "step_on_features_with_reading": Figure(value=with_reading, against="the same from files", note=reading),
    }


def pipeline_figures(
    name: str, model: Any, processor: Any, media: list[Medium], folder: Path, rounds: int
) -> dict[str, Figure]:
    """Decoding alone, encoding alone, and both at once as `avllm features` does it, with its shards written."""
    model.eval()
    branch = model.branches["video"]
    loaded = [processor.read(medium.source, "video").values[None] for medium in media]
    numbers = itertools.count()

    def decode() -> None:
        for _ in read_ahead(media, lambda medium: processor.read(medium.source, "video"), 1):
            pass

    @torch.inference_mode()
    def encode() -> None:
        for values in loaded:
            branch.features(values)

    def both() -> None:
        store_of(model, processor, media, folder / f"{name}-{next(numbers)}")

    runs = interleaved({what.__name__: lambda what=what: seconds(what) for what in (decode, encode, both)}, rounds)
    shares = [max(d, e) / b for d, e, b in zip(runs["decode"], runs["encode"], runs["both"], strict=True)]
    each = {what: median(found) / len(media) for what, found in runs.items()}
    note = "; ".join(f"{what} {each[what]:.3f} s" for what in each) + " a clip"
    return {
        f"pipeline_{name}": Figure(
            value=median(shares), goal=0.85, against="the slower of decode and encode alone", note=note
        )
    }


def store_of(model: Any, processor: Any, media: list[Medium], folder: Path) -> Path:
    """Makes a store by the work of `avllm features`: one thread decodes, one encodes."""
    folder.mkdir()
    reading, branch = Reading(processor), model.branches["video"]
    begin(folder, "fp16", {"video": {}})
    items = [Item(reading.key("video", medium), "video", medium) for medium in media]
    for _ in Extractor({"video": branch}, processor, folder, batch=1, decoders=1).run([items]):
        pass
    return folder


def middle_size() -> tuple[AvllmForConditionalGeneration, AvllmProcessor]:
    """The system with random weights; the tokenizer is nano's, as no text is read."""
    torch.manual_seed(0)
    config = AvllmConfig.from_yaml("video_llama_7b", MIDDLE)
    processor = AvllmProcessor.from_config(config, load_model("nano", device="cpu")[1].tokenizer)
    return AvllmForConditionalGeneration(config), processor


def make_clips(folder: Path, count: int) -> list[Medium]:
    """Equal clips under different names; a box at the end that says nothing makes their contents differ."""
    data = write_video(folder / "clip.mp4", moving(10 * FPS), FPS, gop=250, threads=2).read_bytes()
    paths = [folder / f"{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
    return [Medium(kind="video", source=path) for path in paths]
