"""The model card of an export: what it is, what was measured of it, and how it is used; no path of this machine.

card         the text of README.md; its head is what the hub reads
merged_card  that of an adapter, once it is merged into its base
Card         what an export is, beside its run
AdaptedTo    examples that values were adapted to, and how
base_id      the base model's name for others
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from innerloop.artifacts.card_facts import CardFacts
from innerloop.config.loading import RunConfig
from innerloop.loading.gguf_files import QUANTIZED
from innerloop.loading.models import LoadedModel
from innerloop.results.entries import MeanScore
from innerloop.results.schema import Results
from innerloop.spaces.kinds import LORA

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Holds = Literal["initialization", "task"]

_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}"{revision})
model = PeftModel.from_pretrained(base, "{here}")"""
_MODEL = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{here}")
tokenizer = AutoTokenizer.from_pretrained("{here}")"""
_FITS = "- It fits the weights of its base model that are named above, and no others."
_MERGED = "model with an adapter merged into it"
_SHOWN = """
import json

with open("in_context.json", encoding="utf-8") as file:  # beside the weights
    shown = json.load(file)  # its examples stand before every prompt: shown["use"] says how"""
_HERE = "this folder, or where it is on the hub"
_HOWS = {
    "none": "not adapted",
    "own": "by the run's inner loop",
    "tuned": "lr and steps chosen on validation tasks",
}
_ROLES = {"train": "to train on", "validation": "for validation", "held_out": "held out"}
_MEMORY = {"rss": "of the process", "allocated": "allocated on the GPU", "reserved": "reserved on the GPU"}


class AdaptedTo(NamedTuple):
    """losses: the support loss before each inner step; optimizer: in words."""

    examples: int
    optimizer: str
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """holds: the initialization that a run learned, or values adapted to a task, or trained on one."""

    config: RunConfig
    model: LoadedModel
    facts: CardFacts
    holds: Holds = "initialization"
    adapted: AdaptedTo | None = None
    merged: bool = False

    @property
    def base(self) -> str:
        return base_id(self.config, self.model)

    @property
    def is_adapter(self) -> bool:
        return self.config.method.row.space.exported == "adapter" and not self.merged

    @property
    def shows(self) -> bool:
        """A task's examples stand in its prompts."""
        return self.config.tasks.prompt == "in-context"

    @property
    def is_start(self) -> bool:
        """It is made to be adapted."""
        return self.holds == "initialization" and not self.config.method.row.one_task

    @property
    def scores(self) -> Results | None:
        """Those of the values at hand."""
        return self.facts.results if self.is_start else None


def card(about: Card) -> str:
    row = about.config.method.row
    kind = f"{row.space.title} adapter" if about.is_adapter else _MERGED if about.merged else "model"
    what = "an initialization for few-shot adaptation" if about.is_start else "of one task"
    code = _ADAPTER if about.is_adapter else _MODEL
    revision = f', revision="{about.model.revision}"' if about.model.revision else ""
    code = code.format(base=about.base or "the base model", revision=revision, here=_HERE)
    lines = [
        *("---", _head(about).rstrip(), "---", "", f"# A {kind}: {what}", ""),
        f"Trained by innerloop with `{about.config.method.name}` ({row.title}).",
        *_section("Base model", _base(about)),
        *_section("Data", _data(about)),
        *_section("Training", _training(about)),
        *_section("Adaptation", _adaptation(about)),
        *_section("Scores", _scores(about)),
        *_section("Cost", _cost(about.facts)),
        *_section("Limits", _limits(about)),
        *("", "## Use", "", "```python", code, *([_SHOWN] if about.shows and not about.is_start else []), "```", ""),
    ]
    return "\n".join(lines)


def merged_card(text: str) -> str:
    """The card of an adapter as that of the model that it was merged into; nothing of one that isn't ours."""
    from huggingface_hub import ModelCard, ModelCardData

    if "\nTrained by innerloop" not in text:
        return ""
    found = ModelCard(text)
    kept, data = found.text.partition("\n## Use\n")[0], cast(ModelCardData, found.data)
    data.library_name, data.tags = "transformers", [tag for tag in data.tags or [] if tag != LORA.name]
    body = kept.replace(f"# A {LORA.title} adapter:", f"# A {_MERGED}:", 1).replace(f"{_FITS}\n", "", 1).strip()
    use = _MODEL.format(here=_HERE)
    return f"---\n{data.to_yaml().rstrip()}\n---\n\n{body}\n\n## Use\n\n```python\n{use}\n```\n"


def base_id(config: RunConfig, model: LoadedModel) -> str:
    """The hub id of the base model: as the config says, or as is known of the model's name; else nothing."""
    return config.model.hub_id or model.hub_id


def _head(about: Card) -> str:
    """What the hub reads, in YAML. No license: a run knows of none."""
    from huggingface_hub import ModelCardData

    method = about.config.method
    tags = ["innerloop", method.name, *([method.row.space.name] if about.is_adapter else [])]
    options: dict[str, Any] = {"base_model": about.base} if about.base else {}
    if results := _eval_results(about):
        options |= {"model_name": about.config.output_dir.name, "eval_results": results}
    data = ModelCardData(
        library_name="peft" if about.is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=tags,
        **options,
    )
    return data.to_yaml()


def _eval_results(about: Card) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    found, tasks = about.scores, about.config.tasks
    if found is None:
        return []
    names = {"accuracy": "right answers", "nats": "nats per answer token"}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=tasks.suite or "own-tasks",
            dataset_name=f"held-out tasks of {tasks.suite or 'a folder'}",
            metric_type=score.metric,
            metric_name=f"{names[score.metric]} after {score.k} examples, {_HOWS[score.how]}",
            metric_value=score.mean,
            metric_args={"k": score.k, "adaptation": score.how, **_bounds(score)},
        )
        for score in found.scores
        if score.metric in names and score.table == "unseen"
    ]


def _bounds(score: MeanScore) -> dict[str, Any]:
    return {} if score.low is None else {"interval_95": [score.low, score.high]}


def _section(title: str, lines: Iterator[str]) -> list[str]:
    """Nothing where there is nothing to say."""
    found = list(lines)
    return ["", f"## {title}", "", *found] if found else []


def _base(about: Card) -> Iterator[str]:
    model = about.model
    unnamed = "not named: a local folder (`model.hub_id` of the run's config names it)"
    weights = f", as {QUANTIZED[model.name]}" if model.name in QUANTIZED else ""
    revision = f", revision `{model.revision}`" if model.revision else ""
    yield f"- {about.base or unnamed}{revision}{weights}"
    yield f"- sha256 of its weights: {model.fingerprint[:16]}"
    yield f"- number type of the forward pass: {about.config.model.dtype}"
    if attention := about.config.model.attn_implementation:
        yield f"- attention: {attention}"


def _data(about: Card) -> Iterator[str]:
    tasks, facts = about.config.tasks, about.facts
    yield f"- tasks of {f'the suite `{tasks.suite}`, which innerloop generates' if tasks.suite else 'a folder'}"
    for role, count in facts.tasks.items():
        if count:
            examples = f", {facts.examples[role]:,} examples" if role in facts.examples else ""
            yield f"- tasks {_ROLES[role]}: {count}{examples}"
    yield f"- of each task, {tasks.test} examples are kept for tests; an example has at most {tasks.max_length} tokens"
    if facts.data_digest:
        yield f"- checksum of all examples: {facts.data_digest}"


def _training(about: Card) -> Iterator[str]:
    config = about.config
    tasks, outer, inner, lora = config.tasks, config.outer, config.method.inner, config.method.lora
    query = f", {tasks.query} query" if tasks.query else ""
    yield f"- outer loop: {outer.steps} steps on {outer.tasks_per_step} tasks each, {outer.build_optimizer().said}"
    yield f"- of a task in a step: {tasks.support} support{query} examples"
    if about.shows:
        yield "- in context: an example stands in a prompt behind others of its task"
    if inner is not None:
        yield f"- inner loop: {inner.said_steps}, {inner.build().optimizer.said}"
    if lora is not None:
        layers = lora.layers if isinstance(lora.layers, str) else ", ".join(map(str, lora.layers))
        yield f"- LoRA: r {lora.r}, lora_alpha {lora.lora_alpha:g}, layers {layers}"
    yield f"- seed: {config.seed}"
    if about.facts.packages:
        yield f"- made with {', '.join(f'{name} {version}' for name, version in about.facts.packages.items())}"


def _adaptation(about: Card) -> Iterator[str]:
    adapted = about.adapted
    if about.holds == "task" and adapted is not None and not adapted.losses:
        yield f"- adapted to {adapted.examples} examples without a step"
    elif about.holds == "task" and adapted is not None:
        first, last = adapted.losses[0], adapted.losses[-1]
        yield f"- adapted to {adapted.examples} examples in {len(adapted.losses)} steps, {adapted.optimizer}"
        yield f"- support loss before the first step {first:.3f}, before the last {last:.3f} nats per scored token"


def _scores(about: Card) -> Iterator[str]:
    found = about.scores
    if found is None:
        yield "Not evaluated." if about.is_start else "These values were not evaluated on test examples."
        return
    facts = found.protocol
    yield f"On tasks that training never saw ({len(facts.held_out)}, with {facts.test_examples} test examples each),"
    yield f"adapted to k of their examples; means over draws of these ({facts.draws}). In brackets: 95 % intervals."
    yield from ("", "| k | adapted | right answers, % | nats per answer token |", "|---|---|---|---|")
    rows = dict.fromkeys((score.k, score.how) for score in found.scores if score.table == "unseen")
    for k, how in rows:
        same = [score for score in found.scores if (score.table, score.k, score.how) == ("unseen", k, how)]
        by = {score.metric: score for score in same}
        right, nats = (_written(by.get(name), scale) for name, scale in (("accuracy", 100), ("nats", 1)))
        yield f"| {k} | {_HOWS[how]} | {right} | {nats} |"
    yield from ("", *(f"The {note}." for note in found.notes if note.startswith("95 %")))


def _written(score: MeanScore | None, scale: int) -> str:
    if score is None:
        return "not measured"
    digits = 1 if scale == 100 else 3
    mean, low, high = (None if value is None else value * scale for value in (score.mean, score.low, score.high))
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def _cost(facts: CardFacts) -> Iterator[str]:
    """As it was measured in training."""
    if facts.seconds is not None:
        tokens = f" for {facts.tokens:,} tokens" if facts.tokens else ""
        yield f"- training took {facts.seconds:,.{0 if facts.seconds >= 10 else 1}f} seconds{tokens}"
    for kind, size in facts.peak_bytes.items():
        yield f"- peak memory {_MEMORY.get(kind, kind)}: {size / 1e6:,.0f} MB"


def _limits(about: Card) -> Iterator[str]:
    inner = about.config.method.inner
    if about.is_start:
        how = f"{inner.most} steps of {inner.build().optimizer.said}" if inner else "a few steps"
        yield f"- It is made to be adapted first, by {how}, on a handful of a new task's examples."
        if about.shows:
            yield "- Those examples stand in its prompts, too: without them it isn't what was trained."
    else:
        yield "- It is of one task, and nothing is known of it on others."
    if about.is_adapter:
        yield _FITS
    trained = about.facts.tasks.get("train")
    if about.is_start and trained:
        yield f"- It learned from {trained} tasks with one training seed: another seed may give another result."
    yield "- It was trained in the language and form of its tasks. In others it may be worse than its base model."
    yield "- The licenses of the base model and of the data bind whoever uses it; the run states none."
