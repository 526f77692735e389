"""Law 8: where meta-learning has to win, and where it must not; real trainer, methods and inner loop.

Five classes with centres in a hidden plane of 4 of 32 dimensions; the others are louder noise; all rotated.

mutually exclusive   every task draws its own centres: no input tells its class, so one model can't serve two
                     tasks, but five steps from a start that reads the hidden plane can
not exclusive        all tasks have the same centres: one model serves them all, and joint training finds it
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from innerloop.data.tasks import Batch, TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Fomaml, Joint, Method
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import per_task
from innerloop.spaces.all_parameters import AllParameters

WIDTH, HIDDEN, CLASSES = 32, 4, 5
SPREAD, WITHIN, NOISE = 3.0, 0.3, 1.5  # standard deviations: of centres, of a class, of the other dimensions
TASKS, SHOTS, QUERIES = 8, 5, 10  # tasks a step; support and query examples a class
SUPPORT = SHOTS * CLASSES
HELD_OUT = 100


class Source:
    """An endless supply of tasks."""

    def __init__(self, *, exclusive: bool, seed: int) -> None:
        fixed = torch.Generator().manual_seed(0)
        self.rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=fixed)).Q
        self.centres = None if exclusive else SPREAD * torch.randn(1, CLASSES, HIDDEN, generator=fixed)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, tasks: int, per_class: int) -> tuple[Tensor, Tensor]:
        """Features (T, B, 32) and classes (T, B); any run of five examples has every class."""
        centres = self.centres
        if centres is None:
            centres = SPREAD * self._normal(tasks, CLASSES, HIDDEN)
        classes = torch.arange(CLASSES).repeat(tasks, per_class)
        own = centres.expand(tasks, -1, -1).gather(1, classes[..., None].expand(-1, -1, HIDDEN))
        signal = own + WITHIN * self._normal(*own.shape)
        noise = NOISE * self._normal(*classes.shape, WIDTH - HIDDEN)
        return torch.cat([signal, noise], -1) @ self.rotation, classes

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


def batch(features: Tensor, classes: Tensor) -> Batch:
    """Features and a class take the place of tokens; no row is scored by a language model's head."""
    none = torch.empty(0, dtype=torch.long)
    examples = ((Encoded("", (0,), 0),) * features.shape[1],) * len(features)
    both = torch.cat([features, classes[..., None]], -1)
    return Batch(tokens=both, scored_rows=none, row_task=none, examples=examples)


def new_space() -> AllParameters:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        ).requires_grad_(False)

    def loss(batch: Batch, *, twice: bool = False) -> Tensor:
        rows = batch.tokens.flatten(0, 1)
        return cross_entropy(model(rows[:, :-1]), rows[:, -1].long()).view(1)

    return AllParameters(model, loss)


def inner_loop(lr: float = 0.1) -> InnerLoop:
    return InnerLoop(steps=5, optimizer=Sgd(lr=lr))


def for_fomaml(features: Tensor, classes: Tensor) -> TaskBatch:
    support, query = (batch(features[:, part], classes[:, part]) for part in (slice(SUPPORT), slice(SUPPORT, None)))
    return TaskBatch(tuple(f"task {t}" for t in range(TASKS)), [support], query)


def for_joint(features: Tensor, classes: Tensor) -> TaskBatch:
    """The same examples, support and query together."""
    return TaskBatch(tuple(f"task {t}" for t in range(TASKS)), [], batch(features, classes))


def train(
    method: Method, prepared: Callable[[Tensor, Tensor], TaskBatch], *, exclusive: bool, rounds: int
) -> AllParameters:
    space, source = new_space(), Source(exclusive=exclusive, seed=1)
    trainer = Trainer(space, method, AdamW(lr=3e-3))
    for _ in range(rounds):
        trainer.step(prepared(*source.draw(TASKS, SHOTS + QUERIES)))
    return space


def accuracy(space: AllParameters, *, exclusive: bool, inner: InnerLoop | None = None) -> float:
    """On held-out tasks, after adaptation to five examples a class: the same adaptation for every arm."""
    features, classes = Source(exclusive=exclusive, seed=999).draw(HELD_OUT, 25)
    right = 0.0
    for task in range(HELD_OUT):
        x, y = features[task : task + 1], classes[task : task + 1]
        support = batch(x[:, :SUPPORT], y[:, :SUPPORT])
        adapted = (inner or inner_loop()).adapt(space, per_task(space.shared, 1), [support])
        with space.installed(adapted.values) as model:
            right += (model(x[0, SUPPORT:]).argmax(-1) == y[0, SUPPORT:]).float().mean().item()
    return right / HELD_OUT


@cache
def exclusive_fomaml() -> AllParameters:
    return train(Fomaml(inner=inner_loop()), for_fomaml, exclusive=True, rounds=300)


def test_fomaml_learns_to_adapt_where_no_single_model_can_do() -> None:
    space = exclusive_fomaml()
    assert accuracy(space, exclusive=True) >= 0.95
    still = InnerLoop(steps=0, optimizer=Sgd(lr=0.1))
    assert accuracy(space, exclusive=True, inner=still) <= 0.35, "without adaptation it can only guess: 5 classes"


def test_joint_training_does_not_even_with_three_times_the_steps() -> None:
    space = train(Joint(), for_joint, exclusive=True, rounds=900)
    assert accuracy(space, exclusive=True) <= 0.65


def test_fomaml_whose_inner_loop_does_not_move_does_not_either() -> None:
    """The negative control of the first test: the right code, an inner rate of 1e-4."""
    space = train(Fomaml(inner=inner_loop(1e-4)), for_fomaml, exclusive=True, rounds=150)
    assert accuracy(space, exclusive=True) <= 0.65
    assert accuracy(new_space(), exclusive=True) <= 0.65, "an untrained start"


def test_both_tie_where_one_model_serves_all_tasks() -> None:
    fomaml = train(Fomaml(inner=inner_loop()), for_fomaml, exclusive=False, rounds=60)
    joint = train(Joint(), for_joint, exclusive=False, rounds=60)
    reached = accuracy(fomaml, exclusive=False), accuracy(joint, exclusive=False)
    assert min(reached) >= 0.98
    assert abs(reached[0] - reached[1]) <= 0.02


def test_held_out_tasks_are_new_and_nothing_leaks_into_them() -> None:
    """What was trained on one set of centres fails on exclusive tasks: the centres do differ."""
    one = train(Joint(), for_joint, exclusive=False, rounds=60)
    assert accuracy(one, exclusive=True, inner=InnerLoop(steps=0, optimizer=Sgd(lr=0.1))) <= 0.45
    assert accuracy(exclusive_fomaml(), exclusive=True) - accuracy(one, exclusive=True) > 0.1
