"""A comparison's results.json made up for the report's tests: no number in it was measured.

Two budgets, seven held-out tasks; one arm wins, one ties, one loses; a cell failed, a cell is missing, two only tell
their cost; and whoever named a task, or what failed, was no friend.

read        such contents -> Results
example     three training seeds, a primary contrast
few_seeds   the same of one seed: no verdict on a method, no p
"""

import json
from typing import Any

import numpy as np

from innerloop.results.schema import Results

HOSTILE_TASK = "<script>alert(1)</script>"
MATH_TASK = "price in $x_1$ | 50% \\frac{"
HOSTILE_REASON = 'out of memory <img src=x onerror="alert(2)"> | *bold* & `tick`\nsecond line'
HELD_OUT = [HOSTILE_TASK, MATH_TASK, "gcd", "half_life", "hidden-rules/reverse-each-word", "lcm", "units"]
TRAIN = ["addition", "subtraction", "<b>powers</b>", "prime_factorization", "roman", "sorting", "calendar", "clock"]
KS = [0, 2, 8]
SEEDS = [1, 2, 3]
UNTRAINED = ("base", "in-context")
#        arm: nats and accuracy at k = 0, gained from k = 0 to the largest k, and the trade for each
SKILL = {
    "base": (1.92, 0.11, 0.0, 0.0),
    "in-context": (1.92, 0.11, 0.42, 0.14),
    "lora": (1.92, 0.11, 0.50, 0.12),
    "joint-lora": (1.35, 0.24, 0.28, 0.10),
    "fomaml-lora": (1.41, 0.22, 0.36, 0.13),
    "meta-lora": (1.38, 0.23, 0.55, 0.22),
}
COSTS = {"joint": (134_515_008, 100.0), "fomaml": (134_515_008, 100.0)}
CONFIG = """model: {name: smollm2-135m-q4_1, dtype: float32}
tasks: {suite: math-science, examples_per_task: 64, support: 8, query: 8}
method: {name: %s, lora: {r: 16, lora_alpha: 32, layers: last-8}}
outer: {steps: 60}
seed: 1
# ``` a fence, and </script> a tag
"""


def read(given: dict[str, Any]) -> Results:
    return Results.model_validate_json(json.dumps(given))


def example() -> dict[str, Any]:
    random = np.random.default_rng(7)
    scores = [*_unseen(random), *_seen(random)]
    differences = _differences(scores, random)
    return {
        "format": 1,
        "name": "quick",
        "status": "partial",
        "started": "2026-11-23",
        "command": "innerloop compare matrices/quick.yaml --output comparisons/quick",
        "matrix_yaml": "name: quick\nbudgets: [tokens, seconds]\nk: [0, 2, 8]\n",
        "environment": {
            "python": "3.11.2",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "threads": 2,
            "cuda": None,
            "packages": {"innerloop": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.3.0"},
            "commit": "0123456789abcdef0123456789abcdef01234567",
        },
        "notes": ["7 held-out tasks: valid for these tasks only", f"{HOSTILE_TASK} has 40 examples, not 64"],
        "overlaps": [
            {
                **{"task": HOSTILE_TASK, "role": "held_out", "test": 3, "of_test": 24, "pool": 5, "of_pool": 64},
                **{"role_of": "train", "used": 8, "others": ["<b>powers</b>", "roman"]},
            }
        ],
        "protocol": {
            "k": KS,
            "draws": 2,
            "seeds": SEEDS,
            "test_examples": 24,
            "held_out": HELD_OUT,
            "validation": ["lcm_many", "volume"],
            "train": TRAIN,
        },
        "detectable": {
            "nats": 0.11,
            "accuracy": 0.08,
            "assumptions": "80 % power, two-sided 5 %, paired; spread between tasks taken from the validation tasks.",
        },
        "primary": _primary(differences),
        "rows": _rows(),
        "scores": scores,
        "differences": differences,
        "contrasts": _contrasts(),
        "adaptation": _adaptation(),
        "targets": _targets(),
        "forgetting": _forgetting(),
        "training": _training(random),
        "questions": _questions(),
    }


def few_seeds() -> dict[str, Any]:
    found = example()
    found["protocol"]["seeds"] = SEEDS[:1]
    found["detectable"] = {"assumptions": "nothing about methods"}
    for entry in (*found["differences"], *found["contrasts"], found["primary"]):
        del entry["p"]
        entry |= {"seeds": SEEDS[:1], "verdict": "these trained values"}
    for entry in (*found["scores"], *found["rows"]):
        entry["seeds"] = SEEDS[:1]
    return found


def cells() -> list[tuple[str, str, str]]:
    """(budget, arm, how) of everything that was scored on unseen tasks."""
    arms = {"tokens": ("lora", "joint-lora", "fomaml-lora", "meta-lora"), "seconds": ("joint-lora", "meta-lora")}
    found = [("", arm, "none") for arm in UNTRAINED]
    for budget, names in arms.items():
        found += [(budget, arm, how) for arm in names for how in ("own", "tuned")[: 2 if budget == "tokens" else 1]]
    return found


def _unseen(random: np.random.Generator) -> list[dict[str, Any]]:
    scores = []
    for budget, arm, how in cells():
        nats0, right0, nats_gain, right_gain = SKILL[arm]
        for k in [0] if arm == "base" else KS[1:] if arm == "in-context" else KS:
            share = np.log2(1 + k) / np.log2(1 + KS[-1]) * (1.15 if how == "tuned" else 1)
            for metric, mean in (("nats", nats0 - nats_gain * share), ("accuracy", right0 + right_gain * share)):
                kind = "none" if k == 0 else how
                scores.append(_score(random, "unseen", budget, arm, kind, k, metric, float(mean), HELD_OUT))
                if metric == "nats":
                    scores.append(_stopping(scores[-1]))
                else:
                    scores[-1]["cut"] = [k, 48 * len(HELD_OUT)]
    once = {(s["budget"], s["arm"], s["how"], s["k"], s["metric"]): s for s in scores}  # k = 0 for both hows
    return [*once.values()]


def _seen(random: np.random.Generator) -> list[dict[str, Any]]:
    means = {"base": (1.81, 0.14), "joint-lora": (0.92, 0.41), "fomaml-lora": (1.02, 0.37), "meta-lora": (0.98, 0.39)}
    scores = []
    for arm, (nats, right) in means.items():
        for budget in [""] if arm == "base" else ["tokens"]:
            scores.append(_score(random, "seen", budget, arm, "none", 0, "nats", nats, TRAIN))
            scores.append(_stopping(scores[-1]))
            scores.append(_score(random, "seen", budget, arm, "none", 0, "accuracy", right, TRAIN))
    return scores


def _score(
    random: np.random.Generator,
    table: str,
    budget: str,
    arm: str,
    how: str,
    k: int,
    metric: str,
    mean: float,
    names: Any,
) -> dict[str, Any]:
    wide = 0.17 if metric == "nats" else 0.06
    spread = random.normal(0, wide, len(names))
    values = [round(float(np.clip(mean + s - spread.mean(), 0.01, None)), 4) for s in spread]
    tasks = dict(zip(names, values, strict=True))
    worst = (max if metric == "nats" else min)(tasks, key=lambda task: tasks[task])
    mean = sum(values) / len(values)
    about = {"table": table, "budget": budget, "arm": arm, "how": how, "k": k, "metric": metric}
    found = {"mean": mean, "low": mean - wide * 0.8, "high": mean + wide * 0.8, "worst": [worst, tasks[worst]]}
    return about | found | {"tasks": tasks, "seeds": SEEDS}


def _stopping(score: dict[str, Any]) -> dict[str, Any]:
    """A tenth of the nats of the answer."""
    tenth = {key: score[key] / 10 for key in ("mean", "low", "high")}
    tasks = {task: value / 10 for task, value in score["tasks"].items()}
    return score | tenth | {"metric": "stop_nats", "tasks": tasks, "worst": [score["worst"][0], score["worst"][1] / 10]}


def _primary(differences: list[dict[str, Any]]) -> dict[str, Any]:
    named = {"budget": "tokens", "arm": "meta-lora", "k": 8, "metric": "nats"}
    wanted = {**named, "table": "unseen", "how": "own"}
    found = next(entry for entry in differences if all(entry[key] == value for key, value in wanted.items()))
    numbers = {key: found[key] for key in ("mean", "low", "high", "p", "verdict", "tasks", "seeds")}
    return {**named, "against": "joint-lora", "adaptation": "own", **numbers}


def _differences(scores: list[dict[str, Any]], random: np.random.Generator) -> list[dict[str, Any]]:
    """Each arm minus joint-lora at the same table, budget, k and metric."""
    found = []
    for score in scores:
        for budget in [score["budget"]] if score["budget"] else ["tokens", "seconds"]:
            for how in ["own", "tuned"] if score["how"] == "none" and score["k"] else [score["how"]]:
                reference = _reference(scores, {**score, "budget": budget, "how": how})
                if score["arm"] != "joint-lora" and reference:
                    found.append(_difference({**score, "budget": budget, "how": how}, reference, random))
    return found


def _reference(scores: list[dict[str, Any]], score: dict[str, Any]) -> dict[str, Any] | None:
    same = ("table", "budget", "how", "k", "metric")
    return next((s for s in scores if s["arm"] == "joint-lora" and all(s[k] == score[k] for k in same)), None)


def _difference(score: dict[str, Any], reference: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    tasks = {task: value - reference["tasks"][task] for task, value in score["tasks"].items()}
    mean = float(np.mean([*tasks.values()]))
    wide = 0.1 if score["metric"] == "nats" else 0.045
    p = float(np.clip(np.exp(-((mean / wide * 1.5) ** 2)), 1e-4, 1))
    better = (mean < 0) == (score["metric"] == "nats")
    high = mean + wide * float(random.uniform(0.9, 1.1))
    verdict = "no detectable difference from joint-lora" if p > 0.05 else "better" if better else "worse"
    about = {key: score[key] for key in ("table", "budget", "arm", "how", "k", "metric")}
    about |= {"reference": "joint-lora", "reference_how": score["how"]}
    found = {"mean": mean, "low": mean - wide, "high": high, "p": p}
    return about | found | {"verdict": verdict, "tasks": tasks, "seeds": SEEDS}


def _contrasts() -> list[dict[str, Any]]:
    common = {"name": "algorithm", "of": "meta-lora - fomaml-lora", "budget": "tokens", "how": "own", "k": 8}
    common |= {"seeds": SEEDS}
    nats = {"metric": "nats", "mean": -0.11, "low": -0.19, "high": -0.03, "p": 0.008, "verdict": "better"}
    accuracy = {"metric": "accuracy", "mean": 0.021, "low": -0.039, "high": 0.081, "p": 0.48}
    return [common | nats, common | accuracy | {"verdict": "no detectable difference"}]


def _algorithm(arm: str) -> str:
    names = {"lora": "Std LoRA, one task", "meta-lora": "two-stage META-LORA"}
    return names.get(arm, "multi-task training" if "joint" in arm else "first-order MAML")


def _row(arm: str, budget: str, **changes: Any) -> dict[str, Any]:
    """Of a LoRA run, or of an arm that isn't trained."""
    common = {"arm": arm, "budget": budget, "seeds": SEEDS, "cost_only": False, "status": "done", "reason": ""}
    costs = {
        "parameters": 1_843_200,
        "percent": 1.352,
        "examples_per_task": 64,
        "tasks": 8,
        "passes": 3.75,
        "steps": 60,
    }
    costs |= {"tokens": 412_000, "seconds": 183.25, "tokens_per_second": 2248.3, "file_bytes": 7_378_944}
    row = common | costs | {"peak_bytes": {"rss": 1_423_000_000}, "predicted": [], "trains": "LoRA"}
    row |= {"algorithm": _algorithm(arm), "config_yaml": CONFIG % arm, "command": f"innerloop train configs/{arm}.yaml"}
    if arm in UNTRAINED:
        row |= dict.fromkeys(costs, 0)
        row |= {"algorithm": "no training", "trains": "nothing", "tokens_per_second": None}
        row |= {"config_yaml": "", "command": ""}
    return row | changes


def _rows() -> list[dict[str, Any]]:
    names = ("steps", "tokens", "seconds", "tokens_per_second", "file_bytes", "passes")
    nothing: dict[str, Any] = dict.fromkeys(names) | {"peak_bytes": {}}
    rows = [
        _row("base", ""),
        _row("in-context", "", peak_bytes={"rss": 1_512_000_000}),
        _row("lora", "tokens", seconds=171.2, tasks=1),
        _row("joint-lora", "tokens"),
        _row("fomaml-lora", "tokens", seconds=224.8, peak_bytes={"rss": 1_601_000_000}),
        _row("meta-lora", "tokens", seconds=231.4, peak_bytes={"rss": 1_655_000_000}, predicted=["file_bytes"]),
        _row("lora", "seconds", status="missing", reason="interrupted at step 12 of 60", **nothing),
        _row("joint-lora", "seconds", seconds=180.1, tokens=405_000),
        _row("fomaml-lora", "seconds", status="failed", reason=HOSTILE_REASON, **nothing),
        _row("meta-lora", "seconds", seconds=180.6, tokens=321_000, peak_bytes={"rss": 1_655_000_000}),
    ]
    for arm, (count, percent) in COSTS.items():
        big = {"parameters": count, "percent": percent, "steps": 5, "cost_only": True, "file_bytes": 538_000_000}
        memory = {"rss": 3_911_000_000 if arm == "fomaml" else 2_402_000_000}
        costs = {"tokens": 34_300, "seconds": 96.5 if arm == "fomaml" else 41.0, "tokens_per_second": 410.0}
        predicted = ["peak_bytes", "file_bytes"] if arm == "fomaml" else []
        rows.append(_row(arm, "cost", trains="all parameters", peak_bytes=memory, predicted=predicted, **big, **costs))
    return rows


def _adaptation() -> list[dict[str, Any]]:
    found = []
    for budget, arm, how in cells():
        if how == "none":
            continue
        nats0, _, gain, _ = SKILL[arm]
        steps, lr = (3, 3e-3) if how == "own" else (20, 1e-3)
        for k in KS[1:]:
            end = nats0 - gain * k / 8
            curve = [[s, end + (nats0 - end) * float(np.exp(-3 * s / steps))] for s in range(steps + 1)]
            entry = {"budget": budget, "arm": arm, "how": how, "k": k, "steps": steps, "lr": lr, "curve": curve}
            found.append(entry | {"support_nats": end - 0.2, "test_nats": end, "gap": 0.2})
    return found


def _targets() -> list[dict[str, Any]]:
    found = []
    for budget, arm, how in cells():
        reached = {"k": 8, "steps": 3} if arm == "meta-lora" else {"k": None, "steps": None}
        for metric, target in (("nats", 1.0), ("accuracy", 0.3)):
            found.append({"budget": budget, "arm": arm, "how": how, "metric": metric, "target": target, **reached})
    return found


def _forgetting() -> list[dict[str, Any]]:
    found = []
    for budget, arm, how in [cell for cell in cells() if cell[0]]:
        for k in (0, 8):
            divergence = {"kl": 0.02 + 0.01 * k, "low": 0.01 + 0.01 * k, "high": 0.05 + 0.01 * k}
            found.append({"budget": budget, "arm": arm, "how": how, "k": k, **divergence})
    return found


def _questions() -> list[dict[str, Any]]:
    """Two of each task: meta-lora is right, the others answer with another's question."""
    found = []
    for task, number in [(task, number) for number in (1, 2) for task in HELD_OUT]:
        right = {"meta-lora": f"{number}", "base": HOSTILE_REASON}
        answers = [
            {"budget": budget, "arm": arm, "how": how, "k": 0 if arm == "base" else 8}
            | {"text": right.get(arm, "0"), "correct": float(arm == "meta-lora")}
            for budget, arm, how in cells()
        ]
        asked = {"id": f"{task} {number}", "prompt": f"{task} of {number}?\nanswer:", "right": f"{number}"}
        found.append({"task": task, **asked, "answers": answers})
    return found


def _training(random: np.random.Generator) -> list[dict[str, Any]]:
    found, steps = [], np.arange(200)
    for budget, arm in dict.fromkeys((b, arm) for b, arm, _ in cells() if b and arm != "lora"):
        loss = 1.1 + 1.2 * np.exp(-steps / 40) + random.normal(0, 0.08, len(steps))
        gap = 0.15 + 0.1 * np.exp(-steps / 60) + random.normal(0, 0.02, len(steps))
        inner = arm != "joint-lora"
        entry = {"budget": budget, "arm": arm, "seed": 1, "loss": loss.round(4).tolist()}
        entry |= {"tokens": (2060 * (steps + 1)).tolist(), "seconds": (0.9 * (steps + 1)).tolist()}
        adapted = {"support_first": loss + 0.3, "support_last": loss - gap} if inner else {}
        found.append(entry | {name: values.round(4).tolist() for name, values in adapted.items()})
    return found
