"""What benchmarks/race.py races innerloop's `lora` against: trainers of one adapter on one task.

HuggingFace   transformers' Trainer with a PEFT model
Trl           TRL's SFTTrainer, packing=False

Both run their own loop, `train()`, over the same examples in the same order; what they do before its first step and
after its last isn't counted. Batches are padded to their longest.
"""

import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from contenders import LossAndGradient, Rates, Rows, Values, own_name, padded, peft_model, trained
from datasets import Dataset
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from innerloop.spaces.lora import LoraSettings


class _Watch(TrainerCallback):
    """When the first step began and the last one ended, and the gradient that the last one was taken with."""

    def __init__(self) -> None:
        self.began, self.ended = 0.0, 0.0
        self.keep, self.gradient = False, dict[str, Tensor]()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.began = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.keep:
            values = trained(kwargs["model"])
            self.gradient = {own_name(name): v.grad.clone() for name, v in values.items() if v.grad is not None}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended = time.perf_counter()


class HuggingFace:
    """rounds: batches, `steps` of them to a timed stretch. tokenizer: TRL asks for one, though nothing is tokenized."""

    note = "Trainer's defaults but: float32, no clipping, constant rate, no logging or saving, examples in order"

    def __init__(
        self,
        model: nn.Module,
        rounds: Sequence[Rows],
        *,
        values: Values,
        settings: LoraSettings,
        rates: Rates,
        tokenizer: Any = None,
    ) -> None:
        self.model, self.start, self.steps = peft_model(model, values, settings), values, rates.steps
        self.size = len(rounds[0])
        rows = [{"input_ids": t.tolist(), "labels": labels.tolist()} for batch in rounds for t, labels in batch]
        self.watch = _Watch()
        self.trainer = self.build(Dataset.from_list(rows), tokenizer, self._options(rates))
        self.trainer.add_callback(self.watch)
        self.rows: Any = self.trainer.train_dataset  # as the trainer prepared them

    def build(self, rows: Dataset, tokenizer: Any, options: dict[str, Any]) -> Trainer:
        model: Any = self.model
        return Trainer(model, TrainingArguments(**options), data_collator=_collate, train_dataset=rows)

    def seconds(self, index: int) -> float:
        self._train(index * self.steps, self.steps)
        return self.watch.ended - self.watch.began

    def gradient(self, index: int) -> LossAndGradient:
        """Of one step, after which the values are put back."""
        self.watch.keep = True
        loss = self._train(index, 1)
        self.watch.keep = False
        with torch.no_grad():
            for name, value in trained(self.model).items():
                value.copy_(self.start[own_name(name)])
        return loss, self.watch.gradient

    def _train(self, first: int, steps: int) -> float:
        self.trainer.train_dataset = self.rows.select(range(first * self.size, (first + steps) * self.size))
        self.trainer.args.max_steps = steps
        return self.trainer.train().training_loss

    def _options(self, rates: Rates) -> dict[str, Any]:
        return {
            "output_dir": tempfile.gettempdir(),
            "per_device_train_batch_size": self.size,
            "max_steps": 1,
            "learning_rate": rates.outer,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "train_sampling_strategy": "sequential",
            "use_cpu": True,
            "logging_strategy": "no",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
        }


class Trl(HuggingFace):
    def build(self, rows: Dataset, tokenizer: Any, options: dict[str, Any]) -> Trainer:
        from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

        self.note = f"trl {version('trl')}: SFTConfig's defaults but packing=False, bf16=False, "
        self.note += "gradient_checkpointing=False, max_length=None; else as the Trainer"
        config = SFTConfig(packing=False, bf16=False, gradient_checkpointing=False, max_length=None, **options)
        return SFTTrainer(self.model, config, train_dataset=rows, processing_class=tokenizer)


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    return padded([(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in rows])
