"""Rows: questions of `run`, own data of a stage, annotations of benchmarks, and the logs that are read again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, Good
from tests.fuzz.mutate import Form

FORMS: dict[str, Form] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "csv"}
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"id": 1, "video": "clip.mp4", "question": "What moves?"},
    {"id": "two", "video": "clip.mp4", "question": "What sounds?", "audio_mode": "off", "num_frames": 2},
    {"id": 3, "image": "picture.png", "question": "What is it?", "max_new_tokens": 2},
    {"audio": "sound.wav", "question": "What do you hear?", "system": "Be terse."},
    {"id": 5, "media": [{"type": "video", "video": "clip.mp4"}, {"type": "image", "path": "picture.png"}],
    "question": "Both?"},
    {"id": 6, "video": "clip.mp4", "question": "When?", "start_s": 0.1, "end_s": 0.4, "fps": 4.0},
    {"id": 7, "video": "gone.mp4", "question": "Where?"},
    {"id": 8, "question": [{"type": "text", "text": "Which?"}, {"type": "video", "video": "clip.mp4"}]},
)  # fmt: skip


def corpus(folder: Path) -> list[Good]:
    """Small files of every layout that is read, with media of a moment."""
    from tests.evaluation import layouts, row_layouts

    media = _media(folder / "media")
    goods = [_questions(folder / "questions", media), *_own(folder / "own", media), *_stage_data(folder / "stage")]
    for name, make in row_layouts.LAYOUTS.items():
        make(folder / name, row_layouts.Media(media["clip.mp4"], media["sound.wav"], media["picture.png"]))
        goods += _annotations(name, folder / name)
    for name in ("egoschema", "videomme", "nextqa", "perception_test", "activitynet_qa", "video_chatgpt"):
        getattr(layouts, name)(folder / name, media["clip.mp4"])
        goods += _annotations(name, folder / name)
    return [*goods, *_log(folder / "log")]


def _media(folder: Path) -> dict[str, Path]:
    import numpy as np
    from PIL import Image

    from avllm.media import write_audio, write_video

    folder.mkdir(parents=True)
    frames = [np.full((24, 32, 3), (30 * number, 80, 90), np.uint8) for number in range(6)]
    sound = 0.3 * np.sin(np.arange(9600) / 9).astype(np.float32)[None]
    write_video(folder / "clip.mp4", frames, 10.0, waveform=sound)
    write_audio(folder / "sound.wav", sound, 16000)
    Image.fromarray(frames[3]).save(folder / "picture.png")
    return {path.name: path for path in folder.iterdir()}


def _with_media(folder: Path, media: dict[str, Path]) -> Path:
    folder.mkdir(parents=True)
    for name, path in media.items():
        (folder / name).write_bytes(path.read_bytes())
    return folder


def _questions(folder: Path, media: dict[str, Path]) -> Good:
    text = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    (_with_media(folder, media) / "rows.jsonl").write_text(text)
    return Good(name="rows.jsonl", folder=folder, file="rows.jsonl", form="jsonl", more={"of": "run"})


def _own(folder: Path, media: dict[str, Path]) -> list[Good]:
    """Own data in several forms, as JSON and as lines."""
    mp4, asked = (
        {"video": "clip.mp4"},
        [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A car."}],
    )
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A car."}]
    parts = [{"type": "video_url", "video_url": {"url": "clip.mp4"}}, {"type": "text", "text": "What?"}]
    entries: list[dict[str, Any]] = [
        {**mp4, "conversations": asked, "system": "Be terse.", "id": "a"},
        {"image": "picture.png", "conversations": [{"from": "human", "value": "<image>What?"}, asked[1]]},
        {"audio": "sound.wav", "messages": said},
        {"messages": [{"role": "user", "content": parts}, said[1]]},
        {**mp4, "QA": [{"i": "Be terse.", "q": "What moves?", "a": "A car."}]},
        {**mp4, "query": "And then?", "response": "No.", "history": [["Hi", "Hello"]]},
        {**mp4, "instruction": "Add.", "input": "1 2", "output": 3, "start_s": 0.1, "end_s": 0.4},
        {**mp4, "caption": "A car."},
    ]
    goods = []
    for name, text in (
        ("my.json", json.dumps(entries)),
        ("my.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries)),
    ):
        root = _with_media(folder / name, media)
        (root / name).write_text(text)
        more = {"of": "data", "config": {"kind": "conversations", "annotations": name, "root": "."}}
        goods.append(Good(name=name, folder=root, file=name, form=FORMS[Path(name).suffix], more=more))
    return goods


def _stage_data(folder: Path) -> list[Good]:
    """The published layouts of training data, and a tar."""
    from tests.data.test_webdataset import write_tar
    from tests.training.media_system import write_layouts

    folder.mkdir(parents=True)
    files = {"webvid": "webvid/0.csv", "image_captions": "filter_cap.json", "llava_instruct": "llava.json",
             "videochat_instruct": "videochat.json"}  # fmt: skip
    entries = write_layouts(folder)
    picture = (folder / "image" / "a.jpg").read_bytes()
    members = {"1.jpg": picture, "1.json": {"caption": "A dog."}, "2.jpg": picture, "2.txt": "A cat."}
    write_tar(folder / "a.tar", members)
    entries["webdataset"] = {"kind": "webdataset", "shards": str(folder / "a.tar")}
    goods = []
    for kind, file in (*files.items(), ("webdataset", "a.tar")):
        of = {key: value if key == "kind" else _within(folder, value) for key, value in entries[kind].items()}
        form = FORMS.get(Path(file).suffix, "binary")
        goods.append(
            Good(name=file.replace("/", "_"), folder=folder, file=file, form=form, more={"of": "data", "config": of})
        )
    return goods


def _within(folder: Path, path: str) -> str:
    return str(Path(path).relative_to(folder))


def _annotations(name: str, root: Path) -> list[Good]:
    files = sorted(path for path in root.rglob("*") if path.suffix in (*FORMS, ".srt"))
    return [
        Good(
            name=f"{name}_{path.name}",
            folder=root,
            file=str(path.relative_to(root)),
            form=FORMS.get(path.suffix, "binary"),
            more={"of": "benchmark", "name": name},
        )
        for path in files
    ]


def _log(folder: Path) -> list[Good]:
    """A run of a benchmark that ended."""
    from avllm.evaluation.run import evaluate
    from tests.evaluation.fake import FakeAssistant, benchmark

    evaluate(benchmark(folder, clips=2), assistant=FakeAssistant())  # type: ignore[arg-type]
    more = {"of": "log"}
    return [Good(name="log.jsonl", folder=folder / "out", file="log.jsonl", form="jsonl", more=more)]


def calls(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """The reader of that kind of rows, and now and then what answers them."""
    from avllm.chat.rows import read_lines

    rng = case.random()
    if case.more["of"] == "run":
        yield "read_lines", partial(read_lines, case.path, {"audio_mode": "auto"}, case.folder)
        if case.number < 0 or rng.random() < 0.4:
            yield "run", partial(_run, case)
    elif case.more["of"] == "data":
        yield "check", partial(_check, case)
    elif case.more["of"] == "benchmark":
        yield "benchmark", partial(_benchmark, case)
    else:
        yield "rescore", partial(_rescore, case)


@cache
def _assistant() -> Any:
    from avllm.chat.assistant import load

    return load("nano")


def _run(case: Case) -> None:
    """Every line that is not blank has one row, whatever is wrong with it."""
    from avllm.chat.run import run
    from avllm.textfile import byte_lines

    target = case.folder / "answers.jsonl"
    run(case.path, target, assistant=_assistant(), media_root=case.folder, batch=4, max_new_tokens=1)
    ids = [json.dumps(json.loads(line)["id"]) for line in target.read_bytes().splitlines()]
    wanted = sum(1 for _ in byte_lines(case.path))
    assert len(ids) == len(set(ids)) == wanted, f"{wanted} lines, {len(ids)} rows, {len(set(ids))} ids"


def _check(case: Case) -> None:
    from avllm.data import DATASETS
    from avllm.data.check import check

    told = dict(case.more["config"])
    kind = told.pop("kind")
    config = DATASETS[kind](**{key: str(case.folder / value) for key, value in told.items()})
    report = check(config, _assistant().processor)
    json.dumps(report.to_dict())
    report.to_table()


def _benchmark(case: Case) -> None:
    from avllm.evaluation.benchmark import read_benchmark
    from avllm.evaluation.run import plan

    folder = f"data.folder={case.folder}"
    found = read_benchmark(case.more["name"], [folder, f"out={case.folder}/out"])
    plan(found).describe(found)


def _rescore(case: Case) -> None:
    from avllm.evaluation.run import rescore, stored
    from tests.evaluation.fake import benchmark

    found = benchmark(case.folder / "again", clips=2)
    rescore(replace(found, out=str(case.folder))).to_table()
    stored(case.folder).to_table()
