"""Small samples of the benchmarks of sounds, captions and images in their published layouts.

Each function writes one into a folder, with the given clip, sound and image as its media.
"""

import base64
import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.evaluation.layouts import place, write

WORD = "\nAnswer the question using a single word or phrase."


@dataclass(frozen=True)
class Media:
    clip: Path
    sound: Path
    image: Path


def lines(path: Path, *entries: Mapping[str, object]) -> None:
    """Writes JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def ten(*answers: str) -> list[str]:
    return [answers[index % len(answers)] for index in range(10)]


def msvc(folder: Path, media: Media) -> None:
    captions = ["A red bell moves.", "A bell moves to the left.", "Something rings."]
    write(folder / "msvc.json", [{"video_path": "a.mp4", "question": "Describe the video.", "captions": captions}])
    place(media.clip, folder / "a.mp4")


def clotho_aqa(folder: Path, media: Media) -> None:
    rows = [
        {"id": "7", "audio": "audio_files/b.wav", "conversations": turns("<audio>\nIs a bell ringing?", answer)}
        for answer in ("yes", "no", "Bell")
    ]
    write(folder / "clothoAQA_eval.json", rows)
    place(media.sound, folder / "audio_files" / "b.wav")


def clotho_aqa_original(folder: Path, media: Media) -> None:
    rows = [["b c.wav", "Is a bell ringing?", answer, "yes"] for answer in ("yes", "no", "yes")]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "clotho_aqa_test.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file_name", "QuestionText", "answer", "confidence"], *rows])
    place(media.sound, folder / "audio_files" / "b c.wav")


def tut2017(folder: Path, media: Media) -> None:
    rows = [("audio/b020_90_100.wav", "cafe/restaurant"), ("audio/a1.wav", "metro_station"), ("audio/a2.wav", "tram")]
    lines(folder / "tut2017_eval.jsonl", *({"audio": name, "gt": gt, "source": "tut2017"} for name, gt in rows))
    for name, _ in rows:
        place(media.sound, folder / name)


def vocalsound(folder: Path, media: Media) -> None:
    row = {"audio": "data/vsc/f0003_0_cough.wav", "prompt": "x", "gt": "Cough", "source": "vocalsound"}
    lines(folder / "vocalsound_eval.jsonl", row)
    place(media.sound, folder / "audio_16k" / "f0003_0_cough.wav")


def _dialogue(folder: Path, media: Media, file: str, question: str, answer: str) -> None:
    write(folder / file, [{"id": 0, "video": "videos/00000093.mp4", "conversations": turns(question, answer)}])
    place(media.clip, folder / "videos" / "00000093.mp4")


def music_avqa(folder: Path, media: Media) -> None:
    _dialogue(folder, media, "AVQA_music_test.json", "<video>\nHow many bells sound?", "two")


def music_avqa_original(folder: Path, media: Media) -> None:
    asked = {"video_id": "00000272", "question_id": 50, "type": '["Audio-Visual", "Temporal"]', "question_deleted": 0}
    asked |= {
        "question_content": "Is the <Object> at the <LL> louder?",
        "templ_values": '["bell", "left"]',
        "anser": "yes",
    }
    gone = {**asked, "video_id": "9", "question_id": 51, "question_deleted": 1}
    write(folder / "avqa-test.json", [asked, gone])
    place(media.clip, folder / "MUSIC-AVQA-videos-Synthetic" / "00000272.mp4")


def avsd(folder: Path, media: Media) -> None:
    _dialogue(folder, media, "instruction_val.json", "<video>\nWhat rings?", "A bell rings at the end.")


def avssd(folder: Path, media: Media) -> None:
    _dialogue(folder, media, "avssd_test.json", "<video>\nx", "bell ringing")


def vqav2(folder: Path, media: Media) -> None:
    row = {"image": "COCO_test2015_000000262144.jpg", "text": f"What moves?{WORD}", "category": "default"}
    rows = [{"question_id": number, **row} for number in (262144000, 262144001)]
    lines(folder / "llava_vqav2_mscoco_test2015.jsonl", *rows)
    lines(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", rows[0])
    place(media.image, folder / "test2015" / "COCO_test2015_000000262144.jpg")


def vqav2_val(folder: Path, media: Media) -> None:
    asked = {"image_id": 262148, "question": "Is it red?", "question_id": 262148000}
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": 1} for text in ten("yes", "no", "yes")]
    found = {"question_type": "is it", "multiple_choice_answer": "yes", "answers": answers, "image_id": 262148}
    found |= {"answer_type": "yes/no", "question_id": 262148000}
    write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"info": {}, "questions": [asked]})
    write(folder / "v2_mscoco_val2014_annotations.json", {"info": {}, "annotations": [found]})
    place(media.image, folder / "val2014" / "COCO_val2014_000000262148.jpg")


def gqa(folder: Path, media: Media) -> None:
    row = {"question_id": "201307251", "image": "n161313.jpg", "text": f"Is it red?{WORD}", "category": "default"}
    lines(folder / "llava_gqa_testdev_balanced.jsonl", row)
    types = {"detailed": "existAttrC", "semantic": "attr", "structural": "verify"}
    truth = {"question": "Is it red?", "imageId": "n161313", "answer": "yes", "types": types, "isBalanced": True}
    write(folder / "data" / "testdev_balanced_questions.json", {"201307251": truth, "2": truth})
    place(media.image, folder / "data" / "images" / "n161313.jpg")


def vizwiz(folder: Path, media: Media) -> None:
    text = f"What is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.{WORD}"
    name = "VizWiz_test_00000000.jpg"
    lines(folder / "llava_test.jsonl", {"question_id": name, "image": name, "text": text, "category": "default"})
    place(media.image, folder / "test" / name)


def vizwiz_val(folder: Path, media: Media) -> None:
    answers = [{"answer": text, "answer_confidence": "maybe"} for text in ten("unanswerable", "a bell")]
    row = {"image": "VizWiz_val_00000001.jpg", "question": "What is this?", "answers": answers}
    write(folder / "val.json", [{**row, "answer_type": "unanswerable", "answerable": 0}])
    place(media.image, folder / "val" / "VizWiz_val_00000001.jpg")


def textvqa(folder: Path, media: Media) -> None:
    about = {
        "image_id": "003a8ae2ef43b901",
        "question_id": 34602,
        "answers": ten("dakota", "DAKOTA"),
        "set_name": "val",
    }
    write(folder / "TextVQA_0.5.1_val.json", {"data": [{**about, "question": "What brand is it?"}]})
    text = f"What brand is it?\nReference OCR token: DAKOTA, DIGITAL{WORD}"
    row = {"question_id": "003a8ae2ef43b901", "image": "003a8ae2ef43b901.jpg", "text": text, "category": "default"}
    lines(folder / "llava_textvqa_val_v051_ocr.jsonl", row)
    place(media.image, folder / "train_images" / "003a8ae2ef43b901.jpg")


def pope(folder: Path, media: Media) -> None:
    name, asked, number = "COCO_val2014_000000310196.jpg", [], 0
    for category in ("adversarial", "popular", "random"):
        labels = [
            {"question_id": index, "image": name, "text": f"Is there a {thing} in the image?", "label": label}
            for index, (thing, label) in enumerate((("bell", "yes"), ("snowboard", "no")), start=1)
        ]
        lines(folder / "coco" / f"coco_pope_{category}.json", *labels)  # lines, whatever the name says
        for label in labels:
            asked.append({"question_id": number, "image": name, "text": label["text"] + WORD, "category": category})
            number += 1
    lines(folder / "llava_pope_test.jsonl", *asked)
    place(media.image, folder / "val2014" / name)


def scienceqa(folder: Path, media: Media) -> None:
    text = "Context: N/A\nQuestion: What moves?\nOptions: (A) a bell (B) a tree"
    rows = [
        {"id": "4", "image": "4/image.png", "conversations": turns(f"{text}\n<image>", "The answer is A.")},
        {"id": "5", "conversations": turns(text, "The answer is B.")},
    ]
    write(folder / "llava_test_CQM-A.json", rows)
    problem = {"question": "What moves?", "choices": ["a bell", "a tree"], "hint": "", "grade": "grade2"}
    problems = {
        "4": {**problem, "answer": 0, "image": "image.png", "subject": "natural science"},
        "5": {**problem, "answer": 1, "image": None, "subject": "social science"},
    }
    write(folder / "problems.json", problems)
    write(folder / "pid_splits.json", {"test": ["4", "5"]})
    place(media.image, folder / "images" / "test" / "4" / "image.png")


def mmbench(folder: Path, media: Media) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture = base64.b64encode(media.image.read_bytes()).decode()
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category"]
    about = ["image_style", picture, "x", "coarse_perception"]
    rows = [
        [241, "What moves?", "Look at it.", "bell", "tree", "", "", "A", *about],
        [1000241, "What moves?", "Look at it.", "tree", "bell", "", "", "B", "image_style", "241", *about[2:]],
        [252, "What sounds?", "", "bell", "tree", "dog", "cat", "D", *about],
    ]
    with (folder / "mmbench_dev_20230712.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow([*columns, "comment", "split"])
        table.writerows([*row, "", "dev"] for row in rows)


LAYOUTS: Mapping[str, Callable[[Path, Media], None]] = {
    make.__name__: make
    for make in (
        msvc, clotho_aqa, clotho_aqa_original, tut2017, vocalsound, music_avqa, music_avqa_original, avsd, avssd,
        vqav2, vqav2_val, gqa, vizwiz, vizwiz_val, textvqa, pope, scienceqa, mmbench,
    )
}  # fmt: skip
