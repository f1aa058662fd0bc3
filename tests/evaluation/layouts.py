"""Small samples of benchmarks in their published layouts, with a given clip as every video."""

import csv
import json
import shutil
from pathlib import Path

from PIL import Image

from avllm.evaluation.mvbench import TASKS

OPTIONS = ["It moves left.", "It moves right.", "It grows.", "It is still.", "It shrinks."]
SRT = "1\n00:00:00,000 --> 00:00:00,700\n<i>Look,</i> a bell\n\n2\n00:00:00,800 --> 00:01:00,000\nringing\n"


def place(clip: Path, target: Path) -> None:
    """Puts the clip there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, target)


def write(path: Path, data: object) -> None:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def mvbench(folder: Path, clip: Path) -> None:
    for task in TASKS:
        entry = {"video": "a.mp4", "question": "How does it move?", "candidates": OPTIONS[:3], "answer": OPTIONS[1]}
        if task.has_part:
            entry |= {"start": 0.4, "end": 1.7, "accurate_start": 1}
        media = folder / "video" / task.folder
        if task.has_frames:
            entry["video"] = "show_clip_00"
            (media / "show_clip_00").mkdir(parents=True)
            for index in range(1, 8):
                Image.new("RGB", (64, 48), (30 * index, 0, 0)).save(media / "show_clip_00" / f"{index:05d}.jpg")
        else:
            place(clip, media / "a.mp4")
        write(folder / "json" / task.file, [entry])


def egoschema(folder: Path, clip: Path) -> None:
    texts = {f"option {number}": text for number, text in enumerate(OPTIONS)}
    rows = [{"q_uid": uid, "google_drive_id": "x", "question": "What does C do?", **texts} for uid in ("u-1", "u-2")]
    write(folder / "questions.json", rows)
    write(folder / "subset_answers.json", {"u-2": 4})
    place(clip, folder / "good_clips_git" / "u-2.mp4")


def videomme_rows() -> list[dict]:
    listed = [f"{letter}. {text}" for letter, text in zip("ABCD", OPTIONS[:4], strict=True)]
    return [
        {
            "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity", "url": "",
            "videoID": "fFjv93ACGo8", "question_id": "001-1", "task_type": "Action Recognition",
            "question": "How does it move?", "options": listed, "answer": "C",
        }
    ]  # fmt: skip


def videomme(folder: Path, clip: Path) -> None:
    write(folder / "test.json", videomme_rows())
    place(clip, folder / "videos" / "fFjv93ACGo8.mp4")
    (folder / "subtitles").mkdir()
    (folder / "subtitles" / "fFjv93ACGo8.srt").write_text(SRT, encoding="utf-8")


def nextqa(folder: Path, clip: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = [
        "video",
        "frame_count",
        "width",
        "height",
        "question",
        "answer",
        "qid",
        "type",
        "a0",
        "a1",
        "a2",
        "a3",
        "a4",
    ]
    with (folder / "test.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [columns, ["4010069381", 369, 640, 480, "how do the two man play", 3, 6, "CH", *OPTIONS]]
        )
    write(folder / "map_vid_vidorID.json", {"4010069381": "1164/4010069381"})
    place(clip, folder / "NExTVideo" / "1164" / "4010069381.mp4")


def perception_test(folder: Path, clip: Path) -> None:
    question = {
        "id": 3, "question": "Where is it?", "options": OPTIONS[:3], "answer_id": 2, "area": "physics",
        "reasoning": "predictive", "tag": ["motion"],
    }  # fmt: skip
    write(folder / "mc_question_valid.json", {"video_8": {"metadata": {"split": "valid"}, "mc_question": [question]}})
    place(clip, folder / "videos" / "video_8.mp4")


def zero_shot_qa(folder: Path, clip: Path, *, name: str = "a_1_9", file: str = "videos/a_1_9.avi", **answer) -> None:
    write(folder / "test_q.json", [{"question": "what moves", "video_name": name, "question_id": 42}])
    write(folder / "test_a.json", [{"answer": "bell", "question_id": 42, **answer}])
    place(clip, folder / file)


def activitynet_qa(folder: Path, clip: Path) -> None:
    zero_shot_qa(folder, clip, name="1QIUV7WYKXg", file="all_test/v_1QIUV7WYKXg.mp4", type=5)


def video_chatgpt(folder: Path, clip: Path) -> None:
    asked = {"Q": "What happens in the video?", "A": "A red bell moves to the left.", "video_name": "v_1_ab"}
    write(folder / "generic_qa.json", [asked])
    write(folder / "temporal_qa.json", [asked])
    twice = {"Q1": "Which thing is there?", "Q2": "What is to be seen?", "A": "A bell.", "video_name": "v_1_ab"}
    write(folder / "consistency_qa.json", [twice])
    place(clip, folder / "Test_Videos" / "v_1_ab.mp4")
