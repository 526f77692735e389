"""A LoRA adapter as llama.cpp reads one: a GGUF file.

Legend: O = outputs, I = inputs, R = rank, H = heads.

export_gguf   LoRA values -> "<tensor>.lora_a" (R, I) and "<tensor>.lora_b" (O, R) for each tensor of llama.cpp's names
GGUF_NAMES    families that it is known of: transformers' model_type -> llama.cpp's architecture
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from innerloop.errors import Fault, UserError
from innerloop.files import write_whole
from innerloop.spaces.lora import LoraSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GGUF_NAMES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
_INTERLEAVED = "llama"  # whose rotary positions turn neighbouring channels, where transformers turns halves


def export_gguf(
    path: Path,
    model: nn.Module,
    *,
    values: Mapping[str, Tensor],
    lora: LoraSettings,
    dtype: str = "float32",
    base_name: str = "",
) -> None:
    """Writes `values` as an adapter of `model` in llama.cpp's names; an earlier file is replaced.

    Raises UserError for a family that isn't in GGUF_NAMES, without the gguf package, and where the disk refuses.
    """
    config = cast("PreTrainedModel", model).config
    _check(path, config.model_type)
    import gguf

    architecture = GGUF_NAMES[config.model_type]
    layers = gguf.get_tensor_name_map(_number_of(architecture), config.num_hidden_layers)
    kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    quantized = gguf.GGMLQuantizationType[kind]
    with TemporaryDirectory() as place:
        file = Path(place) / "adapter.gguf"
        writer = gguf.GGUFWriter(file, architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        # llama.cpp scales by alpha / rank, rsLoRA or not.
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, lora.scale * lora.r)
        writer.add_file_type(gguf.LlamaFileType[{"F32": "ALL_F32"}.get(kind, f"MOSTLY_{kind}")])
        if base_name:
            writer.add_base_model_count(1)
            writer.add_base_model_name(0, base_name.rpartition("/")[2])
            writer.add_base_model_repo_url(0, f"https://huggingface.co/{base_name}")
        for name, value in values.items():
            module, _, side = name.rpartition(".lora_")
            tensor = layers.get_name(f"{module}.weight", try_suffixes=(".weight",))
            if tensor is None:
                raise UserError(Fault("llama.cpp has no name for this module", config.model_type, module))
            if side == "B" and architecture == _INTERLEAVED:
                value = _neighbours(value, _heads(config, module))
            array = value.detach().cpu().float().contiguous().numpy()
            data = gguf.quants.quantize(array, quantized)
            writer.add_tensor(f"{tensor}.lora_{side.lower()}", data, raw_dtype=quantized)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        try:
            write_whole(path, file.read_bytes())
        except OSError as error:
            raise UserError(Fault(f"can't write the export: {error}", str(path))) from error


def _check(path: Path, family: str) -> None:
    if path.is_dir():
        raise UserError(Fault("a folder is in the way of the export", str(path), expected="the name of a file"))
    if not find_spec("gguf"):
        raise UserError(Fault("writing GGUF needs the gguf package", "gguf", expected='pip install "innerloop[demo]"'))
    if family not in GGUF_NAMES:
        right = f"a base of {', '.join(GGUF_NAMES)}; or a merged model, which llama.cpp's own converter reads"
        raise UserError(Fault("how llama.cpp names this family's tensors is not known here", "gguf", family, right))


def _number_of(architecture: str) -> Any:
    import gguf

    (number,) = (number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return number


def _heads(config: Any, module: str) -> int | None:
    """Of a projection that is turned by its position; None of any other."""
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module.rpartition(".")[2])


def _neighbours(B_OR: Tensor, heads: int | None) -> Tensor:
    """Within each head, the rows of its two halves in turn: 0, half, 1, half + 1, ..."""
    if heads is None:
        return B_OR
    return B_OR.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
