"""`auto` is what the processor says it can do, and stands in what the run writes; anything else stays as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop.config.loading import RunConfig, load_config
from innerloop.engine.dtypes import faster, multiplies_bfloat16, of_dtype, with_dtype
from innerloop.engine.session import prepare
from innerloop.planning.workload import workload_of
from innerloop.runs.meta_train import meta_train
from small_runs import World, manifest_of, settings

AMX = "amx_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else None


def config_of(world: World, dtype: str, folder: Path = Path("unused"), **changes: Any) -> RunConfig:
    return load_config(settings(world, "fomaml-lora", folder, {"model.dtype": dtype, "model.device": "cpu", **changes}))


@pytest.mark.skipif(AMX is None, reason="no /proc/cpuinfo to hold it against")
def test_it_is_the_processors_capability() -> None:
    assert multiplies_bfloat16("cpu") == AMX


def test_auto_becomes_a_name_and_a_name_stays(world: World) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        assert of_dtype(config_of(world, "auto"), dtype).model.dtype == str(dtype).removeprefix("torch.")
        assert of_dtype(config_of(world, "float16"), dtype).model.dtype == "float16"
    expected = "bfloat16" if multiplies_bfloat16("cpu") else "float32"
    assert with_dtype(config_of(world, "auto"), "cpu").model.dtype == expected
    assert load_config(settings(world, "fomaml-lora", Path("unused"))).model.dtype == "float32", "the default"


def test_the_faster_setting_is_named_where_there_is_one() -> None:
    for kind in ("cpu", "cuda"):
        said = faster("float32", kind)
        assert (said is not None) == multiplies_bfloat16(kind)
        assert said is None or "model.dtype: bfloat16" in said
        assert faster("bfloat16", kind) is None


def test_what_was_taken_is_in_the_manifest_and_goes_on(world: World, tmp_path: Path) -> None:
    config = config_of(world, "auto", tmp_path / "run")
    expected = "bfloat16" if multiplies_bfloat16("cpu") else "float32"
    learned = meta_train(config)
    assert manifest_of(tmp_path / "run")["config"]["model"]["dtype"] == expected
    assert manifest_of(tmp_path / "run")["plan"]["dtype"] == expected
    assert f"dtype: {expected}" in (tmp_path / "run" / "run.yaml").read_text()
    assert str(learned.model.model.dtype) == f"torch.{expected}"
    assert {value.dtype for value in learned.space.shared.values()} == {torch.float32}
    assert workload_of(config, kind="cpu").session.config.model.dtype == expected
    assert prepare(config, model=world.model).config.model.dtype == "float32", "of a model that was passed in"
