"""The model card of an export: what it is, how it was trained, and how it is used; no path of this machine.

card   the text of README.md
"""

from typing import Literal

from innerloop.config.loading import RunConfig
from innerloop.loading.gguf_files import QUANTIZED
from innerloop.loading.models import LoadedModel

Holds = Literal["initialization", "task"]

_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{here}")"""
_MODEL = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{here}")
tokenizer = AutoTokenizer.from_pretrained("{here}")"""
_HERE = "this folder, or where it is on the hub"


def card(config: RunConfig, model: LoadedModel, *, holds: Holds) -> str:
    """holds: the initialization that a run learned, or values adapted to a task, or trained on one."""
    row, base = config.method.row, base_id(config, model)
    adapter = row.space.exported == "adapter"
    head = [f"base_model: {base}"] if base else []
    head += [f"library_name: {'peft' if adapter else 'transformers'}", "pipeline_tag: text-generation"]
    tags = ["innerloop", config.method.name, *([row.space.name] if adapter else [])]
    kind = f"{row.space.title} adapter" if adapter else "model"
    shared = holds == "initialization" and not row.one_task
    what = "an initialization for few-shot adaptation" if shared else "of one task"
    code = (_ADAPTER if adapter else _MODEL).format(base=base or "the base model", here=_HERE)
    lines = [
        *("---", *head, "tags:", *(f"- {tag}" for tag in dict.fromkeys(tags)), "---", ""),
        f"# A {kind}: {what}",
        "",
        f"Trained by innerloop with `{config.method.name}` ({row.title}).",
        "",
        *_training(config),
        *_base(config, model),
        "",
        "## Use",
        "",
        *("```python", code, "```", ""),
    ]
    if shared:
        lines += ["It is made to be adapted: a few steps on a handful of a new task's examples come first.", ""]
    return "\n".join(lines)


def base_id(config: RunConfig, model: LoadedModel) -> str:
    """The hub id of the base model: as the config says, or as is known of the model's name; else nothing."""
    return config.model.hub_id or model.hub_id


def _training(config: RunConfig) -> list[str]:
    tasks, outer, inner, lora = config.tasks, config.outer, config.method.inner, config.method.lora
    source = f"the suite {tasks.suite}" if tasks.suite else "a folder of tasks"
    lines = [f"- **tasks**: {source}; {outer.tasks_per_step} per step"]
    lines.append(f"- **outer loop**: {outer.steps} steps of {outer.optimizer.name}, lr {outer.optimizer.lr:g}")
    if inner is not None:
        lines.append(f"- **inner loop**: {inner.steps} steps of {inner.optimizer.name}, lr {inner.optimizer.lr:g}")
    if lora is not None:
        lines.append(f"- **LoRA**: r {lora.r}, lora_alpha {lora.lora_alpha:g}, layers {lora.layers}")
    return [*lines, f"- **seed**: {config.seed}"]


def _base(config: RunConfig, model: LoadedModel) -> list[str]:
    base = base_id(config, model) or "not named: a local folder (`model.hub_id` of the run's config names it)"
    weights = f", as {QUANTIZED[model.name]}" if model.name in QUANTIZED else ""
    return [f"- **base model**: {base}{weights}; sha256 of its weights {model.fingerprint[:16]}"]
