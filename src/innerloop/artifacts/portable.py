"""Values with the model that they are of, which can leave innerloop.

Portable         save(folder): a PEFT adapter, or a plain model; save_gguf(path); agreement(folder, tokens)
plain_adapter    the folder of an adapter, without its run -> Portable
Agreement        of the logits of two forwards
IN_CONTEXT       the file of examples that stand in its prompts
TOLERANCE        of a float32 logit, between our forward and that of transformers and PEFT
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.artifacts.adapter_folder import adapter_settings, read_adapter
from innerloop.artifacts.card import merged_card
from innerloop.artifacts.export import export_adapter, export_model, merged_parameters, reload_logits
from innerloop.artifacts.gguf_adapter import export_gguf
from innerloop.errors import Fault, UserError, did_you_mean
from innerloop.files import read_json
from innerloop.loading.models import DTYPES, LoadedModel, load
from innerloop.numerics.tensors import per_task
from innerloop.spaces.kinds import LORA, SpaceOptions
from innerloop.spaces.lora import LoraSettings

IN_CONTEXT = "in_context.json"
TOLERANCE = 1e-4
LARGEST = 1 << 26  # bytes of that file
MERGED = 1e-5  # share of the largest logit: a sum of weights is rounded where a sum of outputs isn't


class Agreement(NamedTuple):
    """difference: the largest of a logit; allowed: by how much two sound forwards may differ."""

    difference: float
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Portable:
    """lora: None where the values are parameters of the model; dtype: that a model is stored in by default.

    card   whether it is merged -> the text of README.md
    shown  the examples that stand in its prompts (`InContext.shown`), written to IN_CONTEXT
    """

    model: LoadedModel
    values: Mapping[str, Tensor]
    lora: LoraSettings | None
    base_name: str
    dtype: torch.dtype
    card: Callable[[bool], str]
    shown: Mapping[str, Any] | None = None

    def save(self, folder: Path, *, dtype: str | None = None, merged: bool = False) -> None:
        """A PEFT adapter folder; a model folder where all parameters were trained, or it is merged into its base.

        dtype  of what is stored: float32 by default of an adapter
        Raises UserError for another dtype, and where there is no adapter to merge.
        """
        stored, model, options = _dtype(dtype), self.model.model, dict[str, Any]()
        if self.shown is not None:
            lines = [f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in self.shown.items()]
            options["beside"] = {IN_CONTEXT: "{\n" + ",\n".join(lines) + "\n}\n"}
        if self.lora is not None and not merged:
            options |= {"lora": self.lora, "base_name": self.base_name, "dtype": stored or torch.float32}
            export_adapter(folder, model, values=self.values, card=self.card(False), **options)
            return
        values = dict(self.values)
        if merged:
            own = {name: value.detach() for name, value in model.named_parameters()}
            values = own | merged_parameters(model, values=values, lora=self._adapter("merged"))
        options |= {"dtype": stored or self.dtype, "tokenizer": self.model.tokenizer}
        export_model(folder, model, values=values, card=self.card(merged), **options)

    def save_gguf(self, path: Path, *, dtype: str | None = None) -> None:
        """The adapter as llama.cpp reads one. Raises UserError where there is none, or its family isn't known."""
        _dtype(dtype)
        lora, named = self._adapter("gguf"), dtype or "float32"
        export_gguf(path, self.model.model, values=self.values, lora=lora, dtype=named, base_name=self.base_name)

    @torch.no_grad()
    def agreement(self, folder: Path, tokens: Tensor, *, dtype: str | None = None, merged: bool = False) -> Agreement:
        """Between the logits of the values and of `folder`, read by transformers and PEFT alone.

        dtype, merged  as `save` was given them
        """
        model, stored = self.model.model, _dtype(dtype)
        options = {"input_ids": tokens.to(model.device), "use_cache": False}
        if self.lora is None:
            out = torch.func.functional_call(model, dict(self.values), kwargs=options)
        else:
            values = self.values if stored is None or merged else _rounded(self.values, stored)
            with LORA.make(model, SpaceOptions(lora=self.lora)).installed(per_task(values, 1)):
                out = model(**options)
        here = out.logits.float().cpu()
        there = reload_logits(folder, tokens, base=self.model.source, revision=self.model.revision)
        difference = (here - there).abs().max()
        whole = merged or self.lora is None  # every weight of the model is stored in that type
        share = MERGED if not (whole and stored) else max(MERGED, 4 * torch.finfo(stored).eps)
        return Agreement(float(difference), max(TOLERANCE, share * float(here.abs().max())))

    def _adapter(self, where: str) -> LoraSettings:
        if self.lora is None:
            right = "a run of a method that trains LoRA; this one's export is a plain model already"
            raise UserError(Fault("all parameters were trained: there is no adapter", where, expected=right))
        return self.lora


def plain_adapter(folder: Path, base: str | None = None, *, dtype: str = "float32") -> Portable:
    """An adapter that `save` wrote, with its base model: `base`, or the one that it names.

    Raises UserError for a folder that isn't one, and where it names no base and none is given.
    """
    lora, named = adapter_settings(folder)
    if not (base or named):
        right = "--base: where the base model is"
        raise UserError(Fault("this adapter names no base model", str(folder), expected=right))
    model = load(base or named, dtype=dtype)
    values = read_adapter(folder, model.model, lora=lora, base_names=[named])
    readme, shown = folder / "README.md", folder / IN_CONTEXT
    text = readme.read_text("utf-8") if readme.is_file() else ""
    return Portable(
        model=model,
        values=values,
        lora=lora,
        base_name=named,
        dtype=model.model.dtype,
        card=lambda merged: merged_card(text) if merged else text,
        shown=read_json(shown, "examples of an adapter", LARGEST) if shown.is_file() else None,
    )


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise UserError(Fault("unknown dtype", "dtype", name, did_you_mean(name, DTYPES)))
    return None if name is None else getattr(torch, name)


def _rounded(values: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype).float() for name, value in values.items()}
