"""What a language model is asked: the loss on the answers' tokens, and how good the answers are.

Legend: T = tasks, B = examples per task, N = T*B rows, S = tokens, R = scored rows, D = width of the model.

AnswerLoss   (T,) loss per answer token (nats), through the model as it stands (a space installs the values)
Score        how good the answers are: nats, and whether greedy decoding gives them, each (T, B)

Notes 4, 9 and 18: docs/design/0004-exact-match-without-generation.md, 0009-examples-side-by-side.md and
0018-arguments-of-the-forward.md.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from innerloop.data.tasks import Batch
from innerloop.errors import UserError
from innerloop.loading.architecture import (
    base_model,
    check_rotation,
    head,
    logit_softcap,
    longest_alone,
    packs,
    too_long_to_batch,
)
from innerloop.numerics.loss import CHUNK_ROWS, Head, plain_cross_entropy, score_rows, task_cross_entropy
from innerloop.spaces.attention import attending
from innerloop.spaces.phases import phase
from innerloop.spaces.trunk import Companies, Forward, OnCompany, Store, Trunk, with_layers


class Score(NamedTuple):
    """nats, stop_nats: mean nats per token of the answer, and of what stands behind it (0 where nothing does).

    exact: greedy decoding writes all that is scored, token by token: prefix, answer and end.
    """

    nats: Tensor
    stop_nats: Tensor
    exact: Tensor


class AnswerLoss:
    """The task loss of a causal language model: a function of the values and of each example by itself.

    cut            run only the layers from here on; the hidden states below come from `store`, or are computed in
                   `companies`
    checkpointing  recompute each layer in the backward pass instead of keeping its activations
    logit_rows     scored rows whose logits exist at a time
    Raises UserError for a model whose positions depend on what ran before; at a call, for an example so long that they
    would depend on those beside it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        cut: int = 0,
        store: Store | None = None,
        companies: Companies | None = None,
        checkpointing: bool = False,
        logit_rows: int = CHUNK_ROWS,
    ) -> None:
        check_rotation(model)
        self.logit_rows, self.longest = logit_rows, longest_alone(model)
        self.base, self.packs = base_model(model), packs(model)
        weight, bias = head(model)
        self.head = Head(weight, bias, logit_softcap(model))
        self.trunk = Trunk(self.base, cut, {} if store is None else store, companies) if cut else None
        layers = list(cast(nn.ModuleList, self.base.layers))[cut:]
        self.above: list[Forward | None] = [self._checkpointed(layer) if checkpointing else None for layer in layers]

    def __call__(self, batch: Batch, *, twice: bool = False) -> Tensor:
        """(T,) mean nats per scored token, or a part's share of that; `twice` where a second derivative is needed."""
        with phase("forward"):
            rows = self.scored_hidden(batch), self.head, batch.targets, batch.row_task, batch.tasks
            mean_T = plain_cross_entropy(*rows) if twice else task_cross_entropy(*rows, chunk_rows=self.logit_rows)
            return mean_T if batch.share is None else mean_T * batch.share

    @torch.no_grad()
    def score(self, batch: Batch) -> Score:
        """Nats of the answer, of stopping, and exact match, each (T, B); of several answers in a prompt, of the last.

        What a chat template itself writes before an answer is in neither nats. Exact match needs no generation: greedy
        decoding writes these very tokens if and only if each is the most likely one behind the true ones before it.
        """
        nats_R, greedy_R = score_rows(self.scored_hidden(batch), self.head, batch.targets, chunk_rows=self.logit_rows)
        tasks, examples, length = batch.tokens.shape
        example_R = batch.scored_rows // length
        asked = torch.tensor([each.asked for task in batch.examples for each in task], device=nats_R.device)
        last_R = batch.scored_rows % length + 1 >= asked[example_R]
        nats_R, greedy_R, example_R = nats_R[last_R], greedy_R[last_R], example_R[last_R]
        zeros = torch.zeros(tasks * examples, device=nats_R.device)
        count = zeros.index_add(0, example_R, torch.ones_like(nats_R))
        exact = zeros.index_add(0, example_R, greedy_R.float()) == count
        around = [(example.prefix, example.end) for task in batch.examples for example in task]
        prefix, end = torch.tensor(around, device=nats_R.device).unbind(1)
        # Exact match without a generation: note 4. Here a scored row's place within its own example.
        place_R = torch.arange(len(nats_R), device=nats_R.device) - (count.cumsum(0) - count)[example_R]
        answer_R = (place_R >= prefix[example_R]) & (place_R < (count - end)[example_R])
        nats, stop_nats = (
            zeros.index_add(0, example_R, nats_R * rows) / zeros.index_add(0, example_R, rows.float()).clamp_min(1)
            for rows in (answer_R, place_R >= (count - end)[example_R])
        )
        return Score(*(found.view(tasks, examples) for found in (nats, stop_nats, exact)))

    def scored_hidden(self, batch: Batch) -> Tensor:
        """(R, D) last hidden states whose next token is scored."""
        if self.longest is not None and batch.tokens.shape[-1] > self.longest:
            raise UserError(too_long_to_batch(batch.tokens.shape[-1], self.longest, "the longest example of a batch"))
        # One example per row, unless they were packed and the family can keep them apart (note 9).
        tokens_NS, positions, scored = batch.tokens.flatten(0, 1), None, batch.scored_rows
        packing = batch.packing if self.packs else None
        keywords = {} if packing is None else {"packing": packing}
        # The packing and the states are arguments: nothing is kept for the next batch (note 18).
        with self._attending():
            below_NSD = None if self.trunk is None else self.trunk.hidden(batch)
            # States are stored one example each, padded; they are packed like the tokens that they stand for.
            if packing is not None:
                tokens_NS, positions, scored = tokens_NS.flatten()[packing.source], packing.positions, packing.scored
                below_NSD = None if below_NSD is None else below_NSD.flatten(0, 1)[packing.source]
            body = self._body(below_NSD)
            hidden = body(input_ids=tokens_NS, position_ids=positions, use_cache=False, **keywords).last_hidden_state
        return hidden.flatten(0, 1)[scored]

    def fill(self, drawn: Iterable[Sequence[bytes]], device: torch.device, on_company: OnCompany) -> None:
        """Have the hidden states below the cut of these examples, the keys of a task at a time, before they are read.

        on_company: told how many forwards are done of how many.
        """
        if self.trunk is not None:
            with self._attending():
                self.trunk.fill(drawn, device, on_company)

    def _body(self, below_NSD: Tensor | None) -> nn.Module:
        """The base model; above a cut, with these states in place of what the layers below would make of the tokens."""
        if self.trunk is None and not any(self.above):
            return self.base

        def hand_on(*args: Any, **kwargs: Any) -> Tensor | None:
            return below_NSD

        below: list[Forward | None] = [hand_on] * (self.trunk.cut if self.trunk else 0)
        return with_layers(self.base, below + self.above)

    def _attending(self) -> AbstractContextManager[None]:
        return attending(self.base) if self.packs else nullcontext()

    def _checkpointed(self, layer: Forward) -> Forward:
        """The layer, computed again in the backward pass: attending as in the forward."""

        def attended(*args: Any, **kwargs: Any) -> Any:
            # The forward's context is closed by the time of the backward pass (note 18).
            with self._attending():
                return layer(*args, **kwargs)

        return cast(Forward, partial(checkpoint, attended, use_reentrant=False))
