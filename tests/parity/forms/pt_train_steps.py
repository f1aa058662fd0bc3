"""Five steps of VideoChat's stage 1, with our groups of parameters and our schedule."""

from pathlib import Path

import torch
from torch.optim import AdamW

from avllm.checkpoints.videochat import system_from
from avllm.training.optimizer import parameter_groups
from avllm.training.schedule import Schedule
from avllm.training.stage import Optimizer
from tests.parity.check import Check
from tests.parity.common import read_json
from tests.parity.forms.pt_loss import captions
from tests.parity.videochat_case import Case, processor_of


def run(folder: Path, check: Check) -> None:
    """Compares the groups, the rates, the losses, and some parameters after the last step."""
    beside = (folder / read_json(folder / "config.json")["weights"]).parent
    sizes = read_json(beside / "config.json")
    case = Case.open(folder, sizes)
    inputs = case.inputs
    processor = processor_of(system_from(sizes), beside / "tokenizer")
    trained = case.train_as_published()
    settings = case.settings["optimizer"]
    options = Optimizer(weight_decay=settings["weight_decay"], betas=tuple(settings["opt_betas"]))
    groups = parameter_groups(case.model, options)
    check_groups(case, trained, groups, check)
    schedule = schedule_of(case.settings)
    optimizer = AdamW(groups, lr=schedule.lr, betas=options.betas, eps=case.settings["adam_eps"])

    losses, rates = [], []
    for step, name in enumerate(case.settings["batch_order"]):
        texts, prompt = case.settings["texts"][name], case.settings["prompts"][name]
        batch = captions(processor, prompt, texts, inputs[name], case.settings["max_txt_len"])
        loss = case.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
            media=batch["media"],
        ).loss
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        optimizer.step()
        losses.append(loss.detach())
        rates.append(schedule.at(step))
    check.close("losses", torch.stack(losses), case.outputs["losses"], rtol=1e-3)
    check.close("lrs", torch.tensor(rates, dtype=torch.float64), case.outputs["lrs"], rtol=1e-9)
    for name, value in case.outputs.items():
        if name not in ("losses", "lrs"):
            check.close(name, trained[name].detach(), value, atol=1e-4)
    for stage, stored in read_json(folder / "schedule.json").items():
        rates = [schedule_table(stored).at(step) for step, _ in stored["lr_at"]]
        check.close(
            f"schedule.{stage}", torch.tensor(rates), torch.tensor([lr for _, lr in stored["lr_at"]]), rtol=1e-6
        )


def check_groups(case: Case, trained: dict, groups: list, check: Check) -> None:
    """Which parameters decay, by their published names."""
    names = {id(parameter): name for name, parameter in trained.items()}
    for ours, stored in zip(groups, case.settings["param_groups"], strict=True):
        rate = stored["weight_decay"]
        check.same(f"param_groups.{rate}.weight_decay", float(ours["weight_decay"]), float(rate))
        check.same(f"param_groups.{rate}.names", sorted(names[id(p)] for p in ours["params"]), sorted(stored["names"]))


def schedule_of(settings: dict) -> Schedule:
    """The schedule of the five steps."""
    stored, lr = settings["scheduler"], settings["optimizer"]["lr"]
    return Schedule(
        cosine="after_warmup",
        steps_per_epoch=stored["num_training_steps"],
        warmup_steps=stored["num_warmup_steps"],
        lr=lr,
        min_lr=stored["min_lr_multi"] * lr,
    )


def schedule_table(stored: dict) -> Schedule:
    """The schedule of a published stage."""
    return Schedule(
        cosine="after_warmup",
        epochs=stored["epochs"],
        steps_per_epoch=stored["steps_per_epoch"],
        warmup_steps=int(stored["warmup_epochs"] * stored["steps_per_epoch"]),
        lr=stored["lr"],
        min_lr=stored["min_lr_multi"] * stored["lr"],
    )
