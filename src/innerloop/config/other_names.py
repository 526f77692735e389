"""What other projects call our keys, so that a config written for them is answered with the key to use.

TRANSFORMERS   names of TrainingArguments, and ours in their style -> the key: MetaTrainingArguments takes these
OTHERS         names of other trainers and of scripts for MAML -> the key
key_for        the key that a name is another word for, or None
hint           what to write in place of an unknown key, with its value
"""

from collections.abc import Iterator, Mapping
from typing import Any

TRANSFORMERS = {
    "output_dir": "output_dir",
    "method": "method.name",
    "max_steps": "outer.steps",
    "tasks_per_step": "outer.tasks_per_step",
    "learning_rate": "outer.optimizer.lr",
    "optim": "outer.optimizer.name",
    "weight_decay": "outer.optimizer.weight_decay",
    "adam_epsilon": "outer.optimizer.eps",
    "max_grad_norm": "outer.clip",
    "lr_scheduler_type": "outer.schedule",
    "warmup_steps": "outer.warmup",
    "inner_steps": "method.inner.steps",
    "inner_learning_rate": "method.inner.optimizer.lr",
    "inner_optim": "method.inner.optimizer.name",
    "inner_batch_size": "method.inner.batch_size",
    "inner_max_grad_norm": "method.inner.clip",
    "support": "tasks.support",
    "query": "tasks.query",
    "test": "tasks.test",
    "max_length": "tasks.max_length",
    "bf16": "model.dtype",
    "use_cpu": "model.device",
    "gradient_checkpointing": "memory.checkpointing",
    "trunk_cache": "memory.trunk_cache",
    "tasks_per_forward": "memory.tasks_per_forward",
    "eval_steps": "evaluate.every",
    "metric_for_best_model": "evaluate.metric",
    "load_best_model_at_end": "evaluate.export",
    "save_steps": "save.every",
    "save_total_limit": "save.keep",
    "start_from": "start_from",
    "report_to": "report_to",
    "seed": "seed",
}

_WORDS = {
    "method.name": "algorithm algo method_name first_order second_order use_first_order use_second_order",
    "model.name": "model_name model_name_or_path model_id model_path base_model pretrained_model_name_or_path",
    "model.dtype": "fp16 torch_dtype precision mixed_precision",
    "model.device": "no_cuda device_map",
    "tasks.folder": "data_path data_dir data_file data_files train_file dataset dataset_name train_dataset task_dir",
    "tasks.support": "k_shot n_shot k_shots num_shots shots num_support k_support support_size",
    "tasks.query": "num_query k_query query_size",
    "tasks.max_length": "max_seq_length max_seq_len max_len cutoff_len model_max_length sequence_len block_size",
    "method.inner.steps": "num_inner_steps inner_iters adaptation_steps num_adaptation_steps adapt_steps fast_steps",
    "method.inner.optimizer.lr": "inner_lr adaptation_lr fast_lr task_lr lr_inner alpha_lr",
    "outer.optimizer.lr": "outer_lr meta_lr meta_learning_rate lr_meta lr_outer beta_lr",
    "outer.steps": "num_train_epochs num_epochs epochs n_epochs meta_steps num_iterations meta_iterations n_iter",
    "outer.tasks_per_step": "per_device_train_batch_size train_batch_size meta_batch_size task_batch_size",
    "outer.clip": "gradient_clip gradient_clipping grad_clip clip_grad clip_grad_norm",
    "outer.schedule": "lr_scheduler scheduler",
    "outer.warmup": "warmup_ratio num_warmup_steps",
    "memory.tasks_per_forward": "gradient_accumulation_steps",
    "method.lora.r": "lora_r lora_rank rank",
    "evaluate.every": "eval_every eval_interval",
    "evaluate.patience": "early_stopping_patience",
    "report_to": "tracker trackers wandb use_wandb log_with",
    "seed": "random_seed random_state",
    "output_dir": "out_dir save_dir checkpoint_dir",
}
OTHERS = {name: key for key, names in _WORDS.items() for name in names.split()}
_SHOWN = 8


def key_for(name: str) -> str | None:
    """Whatever section it was in; "-" and capitals as some scripts write them."""
    word = name.replace("-", "_").lower()
    return TRANSFORMERS.get(word) or OTHERS.get(word)


def hint(name: str, value: Any) -> str | None:
    """The key for `name`; of an unknown section, the keys for what is in it. None where nothing is known."""
    if not isinstance(value, Mapping):
        return key_for(name)
    known = [f"{word} is {key}" for word in _names(value) if (key := key_for(word)) and key != word]
    more = [f"{len(known) - _SHOWN} more"] if len(known) > _SHOWN else []
    return ", ".join([*known[:_SHOWN], *more]) or None


def _names(tree: Mapping[str, Any]) -> Iterator[str]:
    """The innermost keys."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _names(value)
        else:
            yield str(name)
