"""What innerloop needs of a causal language model, and the parts of one that has it.

base_model, decoder_layers, head, logit_softcap    the parts
packs               whether examples may lie side by side in a row
longest_alone       tokens up to which what a model makes of an example is its own
check_rotation      whether it is, whatever went through the model before
too_long_to_batch   what to say of an example of more tokens
check_parts         whether they are there
check_no_kernel     whether a config asks for code from the hub
check_architecture  and whether the logits are what the parts make of a short input
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from innerloop.errors import Fault, Faults, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Each is held to a padded batch by a test: attention is asked for by name, and nothing else looks at other positions.
PACKING = frozenset({"gemma", "gemma3_text", "gpt_neox", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3"})


def base_model(model: nn.Module) -> nn.Module:
    """The transformer below the output layer; its `last_hidden_state` goes into `head`."""
    return cast("PreTrainedModel", model).base_model


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers, lowest first."""
    return cast(nn.ModuleList, base_model(model).layers)


def head(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (V, D) and bias (V,) of the output layer."""
    output = cast(nn.Linear, cast("PreTrainedModel", model).get_output_embeddings())
    return output.weight, output.bias


def logit_softcap(model: nn.Module) -> float | None:
    """c where the model's logits are c * tanh(logits / c), as in Gemma 2; else None."""
    return getattr(model.config, "final_logit_softcapping", None)


def packs(model: nn.Module) -> bool:
    """Whether the family's attention can be told which tokens belong together: see innerloop.spaces.attention."""
    config, known = cast("PreTrainedModel", model).config, type(model).__module__.startswith("transformers.models.")
    return known and config.model_type in PACKING and config._attn_implementation == "sdpa"  # pyright: ignore[reportPrivateUsage]


def longest_alone(model: nn.Module) -> int | None:
    """Tokens beyond which an example would change what a forward makes of shorter ones beside it; None: any length.

    transformers' longrope chooses one set of frequencies for all rows of a forward, by the longest one.
    """
    lengths = [each["original_max_position_embeddings"] for each in _rotations(model, "longrope")]
    return min(lengths, default=None)


def check_rotation(model: nn.Module) -> None:
    """Raises UserError for positions whose angles depend on what went through the model before."""
    faults = Faults(_rotation_faults(model))
    faults.raise_if_any()


def too_long_to_batch(tokens: int, longest: int, where: str) -> Fault:
    """Of an example that is longer than `longest_alone`."""
    problem = "longer than longrope's original_max_position_embeddings: examples beside it would be read at other"
    return Fault(f"{problem} positions than alone", where, tokens, f"at most {longest} tokens (tasks.max_length)")


def _rotation_faults(model: nn.Module) -> Iterator[Fault]:
    for _ in _rotations(model, "dynamic"):
        problem = "rope_type dynamic: transformers rescales positions by the longest input so far, so that a loss would"
        right = "another rope_type in the model's config.json: default up to its own length, yarn or linear beyond"
        yield Fault(f"{problem} depend on what went through the model before", _family(model), "dynamic", right)


def _rotations(model: nn.Module, kind: str) -> Iterator[dict[str, Any]]:
    """The settings of this kind of rotary positions; some families have one for each type of layer."""
    settings = getattr(base_model(model).config, "rope_parameters", None) or {}
    for each in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        if kind in str(each.get("rope_type", "")):
            yield each


def check_architecture(model: nn.Module) -> None:
    """Raises UserError, naming the family, unless the model is built the way innerloop needs it.

    Beside the parts, logits have to equal head(last_hidden_state), soft-capped where the config says so: measured on a
    random input.
    """
    check_parts(model)
    gap = _logit_gap(model)
    if not gap <= 1e-4:  # NaN is refused as well
        expected = "equal to 1e-4, relative: no other scaling between the hidden states and the logits"
        raise UserError(Fault("the logits are not head(last_hidden_state)", _family(model), gap, expected))


def check_parts(model: nn.Module) -> None:
    """Raises UserError unless decoder layers are in a ModuleList called `layers` and projections are nn.Linear.

    Needs no weights: a model on torch's meta device will do.
    """
    faults, where, base = Faults(), _family(model), base_model(model)
    if not isinstance(getattr(base, "layers", None), nn.ModuleList):
        lists = [name for name, child in base.named_children() if isinstance(child, nn.ModuleList)]
        faults.add("the base model has no ModuleList called `layers`", where, lists, "`layers`")
    if foreign := sorted(set(_foreign_projections(base))):
        faults.add("projections that are not nn.Linear", where, foreign, "nn.Linear")
    if not isinstance(cast("PreTrainedModel", model).get_output_embeddings(), nn.Linear):
        faults.add("no output layer that is an nn.Linear", where, expected="a causal language model")
    faults += _rotation_faults(model)
    faults.raise_if_any()


def _family(model: nn.Module) -> str:
    return f"model family {cast('PreTrainedModel', model).config.model_type!r}"


def _foreign_projections(base: nn.Module) -> Iterator[str]:
    for module in base.modules():
        matrices = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim > 1]
        if matrices and not isinstance(module, nn.Linear | nn.Embedding):
            yield type(module).__name__


@torch.no_grad()
def _logit_gap(model: nn.Module) -> float:
    weight, bias = head(model)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(weight.shape[0], (2, 6), generator=generator).to(weight.device)
    logits = model(input_ids=tokens, use_cache=False).logits.float()
    ours = nn.functional.linear(base_model(model)(input_ids=tokens).last_hidden_state, weight, bias).float()
    if (cap := logit_softcap(model)) is not None:
        ours = cap * torch.tanh(ours / cap)
    return ((ours - logits).abs().max() / logits.abs().max()).item()


def check_no_kernel(config: Path | dict[str, Any], name: str) -> None:
    """Raises UserError for a config (its file, or read) that names code of the hub to compute attention with.

    With the package `kernels` installed transformers would download and run it, whatever trust_remote_code says. What
    else may be wrong with a config transformers tells.
    """
    try:
        pending: list[Any] = [config if isinstance(config, dict) else json.loads(config.read_bytes())]
    except (OSError, ValueError, RecursionError):
        return
    while pending:
        here = pending.pop()
        for key, value in here.items() if isinstance(here, dict) else ():
            named = value.values() if isinstance(value, dict) else [value]
            if "_implementation" in key and any(isinstance(text, str) and "/" in text for text in named):
                problem = f"config.json names code of the hub to compute with ({key})"
                raise UserError(Fault(problem, "model.name", name, f"a config without {key}"))
        pending += here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()


def positions_of(model: Any) -> int | None:
    """The tokens that a model was made to read at most; None: it has no limit of its own."""
    return getattr(model.config, "max_position_embeddings", None)
