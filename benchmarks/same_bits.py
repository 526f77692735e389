"""Whether a change moves no number: trains a commit and this tree on this machine, and compares every bit.

    python benchmarks/same_bits.py [COMMIT]     HEAD by default, against the tree as it stands

Each side is a process of its own over its own sources, on the same tiny models. What is compared: every trained
tensor, every number of metrics.jsonl that both sides write, timings aside, and what an adaptation scores and writes.
Exit 1 where any differ.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LORA = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}
TASKS = {"support": 4, "query": 4, "test": 4, "held_out": ["dee"]}


def run(method: str, /, *, family: str = "llama", **changes: Any) -> dict[str, Any]:
    """Three steps of it; `changes` are sections, merged into the config's."""
    config: dict[str, Any] = {
        "model": {"name": family, "dtype": "float32", "device": "cpu"},
        "tasks": dict(TASKS),
        "method": {"name": method},
        "outer": {"steps": 3, "tasks_per_step": 3},
        "memory": {"tasks_per_forward": 2},
        "seed": 3,
    }
    if method.endswith("lora"):
        config["method"]["lora"] = dict(LORA)
    else:
        config["memory"]["tasks_per_forward"] = 1
    for section, values in changes.items():
        config[section] = {**config[section], **values}
    return config


TOP = {"method": {"name": "meta-lora", "lora": {**LORA, "layers": "last-2"}}}
RUNS: dict[str, dict[str, Any]] = {
    "fomaml": run("fomaml"),
    "maml": run("maml"),
    "reptile": run("reptile"),
    "joint": run("joint"),
    "fomaml adamw": run("fomaml", method={"name": "fomaml", "inner": {"optimizer": {"name": "adamw", "lr": 1e-3}}}),
    "fomaml lean": run("fomaml", family="llama", memory={"lean": True, "tasks_per_forward": 1}),
    "fomaml checkpointing": run("fomaml", memory={"checkpointing": True, "tasks_per_forward": 1}),
    "fomaml-lora": run("fomaml-lora"),
    "fomaml-lora qwen2": run("fomaml-lora", family="qwen2"),
    "fomaml-lora gemma2": run("fomaml-lora", family="gemma2"),
    "maml-lora": run("maml-lora"),
    "meta-lora": run("meta-lora", method={"name": "meta-lora", "lora": LORA, "keep_task_adapters": True}),
    "reptile-lora": run("reptile-lora"),
    "joint-lora": run("joint-lora"),
    "lora": run("lora", outer={"steps": 3, "tasks_per_step": 1}),
    "meta-lora trunk": run("meta-lora", **TOP, memory={"trunk_cache": True, "tasks_per_forward": 2}),
    "meta-lora trunk checkpointing": run(
        "meta-lora", **TOP, memory={"trunk_cache": True, "tasks_per_forward": 3, "checkpointing": True}
    ),
    "meta-lora dropout": run("meta-lora", method={"name": "meta-lora", "lora": {**LORA, "lora_dropout": 0.2}}),
    "meta-lora minibatches": run(
        "meta-lora", method={"name": "meta-lora", "lora": LORA, "inner": {"steps": 3, "batch_size": 2, "clip": 0.5}}
    ),
    "joint-lora 8 logit rows": run("joint-lora", memory={"logit_rows": 8, "tasks_per_forward": 3}),
}


def child(models: str, output: str) -> None:
    """In a process over one side's sources."""
    from innerloop.runs.meta_train import meta_train

    found: dict[str, Any] = {}
    tasks = _tasks(Path(models) / "tasks")
    for name, config in RUNS.items():
        folder = Path(output) / name.replace(" ", "-")
        config = json.loads(json.dumps(config))
        lean = config["memory"].get("lean", False)
        config["model"] |= {"name": f"{models}/{config['model']['name']}"} | ({"dtype": "bfloat16"} if lean else {})
        config["tasks"]["folder"] = str(tasks)
        if config["method"]["name"].startswith("reptile"):
            del config["tasks"]["query"]
        learned = meta_train({**config, "output_dir": str(folder)})
        tensors = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*.safetensors"))
        }
        steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[name] = {"tensors": tensors, "steps": [{**step, "timing": None} for step in steps]}
        if config["method"]["name"] != "lora":
            adapted = learned.adapt([{"prompt": f"{n}+1:", "completion": f" {n + 1}"} for n in range(4)])
            scores = adapted.score([{"prompt": "5+1:", "completion": " 6"}])
            found[name]["adapted"] = [*adapted.losses, *scores, *adapted.generate(["7+1:"], max_new_tokens=4)]
    (Path(output) / "found.json").write_text(json.dumps(found))


def _tasks(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for task in ("ada", "bob", "cy", "dee"):
        rows = [
            {"prompt": f"{task} " + "+" * (n % 4) + f"{n}:", "completion": f" {task[n % len(task)]}"} for n in range(16)
        ]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def trained(source: Path, models: Path, output: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    output.mkdir()
    command = [sys.executable, __file__, "--child", str(models), str(output)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / "found.json").read_text())


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("commit", nargs="?", default="HEAD")
    arguments.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        child(*given.child)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for family in ("llama", "qwen2", "gemma2"):
            code = f"import pathlib, tiny; tiny.save_tiny(pathlib.Path({str(place / family)!r}), {family!r})"
            tests = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
            subprocess.run([sys.executable, "-c", code], check=True, env=tests)
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "-q", "--detach", str(place / "parent"), given.commit],
            check=True,
        )
        try:
            sides = [trained(source, place, place / f"{n}-out") for n, source in enumerate((place / "parent", ROOT))]
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(place / "parent")], check=True)
    differ = 0
    for name in RUNS:
        both = sides[0][name]["steps"][0].keys() & sides[1][name]["steps"][0].keys()
        for side in sides:
            side[name]["steps"] = [{key: step[key] for key in both} for step in side[name]["steps"]]
        same = sides[0][name] == sides[1][name]
        differ += not same
        print(f"{name:<32}{'same' if same else 'DIFFERS'}")
    print(f"{len(RUNS) - differ} of {len(RUNS)} runs are bit for bit what {given.commit} trains")
    return bool(differ)


if __name__ == "__main__":
    raise SystemExit(main())
