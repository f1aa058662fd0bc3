"""The first thing `make demo` does: one example clip, answered in the terminal."""

import time

from rich.console import Console

from avllm.demo.examples import Example
from avllm.demo.model import DemoModel
from avllm.demo.settings import Settings


def answer_example(model: DemoModel, example: Example, console: Console) -> list[str]:
    """Asks the questions of an example and prints question, answer, truth and seconds.

    Returns:
        The answers.
    """
    medium = model.inspect(example.path, example.title)
    console.print(f"{plain(example.path.name)}: {medium.facts()}")
    session, answers = model.new_session(), []
    settings = Settings.default(model.config)
    for number, (question, truth) in enumerate(zip(example.questions, example.answers, strict=True)):
        start = time.perf_counter()
        answer = "".join(model.stream(session, question, settings, [medium] if number == 0 else [])).strip()
        seconds = time.perf_counter() - start
        answers.append(answer)
        for what, text in (("question", question), ("answer", answer), ("truth", truth)):
            console.print(f"  {what:<8}  {plain(text)}")
        console.print(f"  seconds   {seconds:.2f}\n")
    return answers


def plain(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
