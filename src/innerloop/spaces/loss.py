"""What a language model is asked: the loss on the answers' tokens, and how good the answers are.

Legend: T = tasks, B = examples a task, N = T*B rows, S = tokens, R = scored rows, D = width of the model.

AnswerLoss   (T,) mean nats an answer token, through the model as it stands (a space installs the values)
Score        how good the answers are: nats, and whether greedy decoding gives them, each (T, B)
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, cast

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
    too_long,
)
from innerloop.numerics.loss import CHUNK_ROWS, Head, plain_cross_entropy, score_rows, task_cross_entropy
from innerloop.spaces.attention import Attention
from innerloop.spaces.compiled import CompiledLayers
from innerloop.spaces.trunk import Companies, Forward, Progress, Store, Trunk, with_layers


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
    compiled       what makes compiled layers of those that aren't cut off, for the space that holds values in them
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
        compiled: CompiledLayers | None = None,
    ) -> None:
        check_rotation(model)
        self.logit_rows, self.longest = logit_rows, longest_alone(model)
        self.attention = Attention() if packs(model) else None
        base = self.attention.within(base_model(model)) if self.attention else base_model(model)
        layers = cast(nn.ModuleList, base.layers)
        weight, bias = head(model)
        self.head = Head(weight, bias, logit_softcap(model))
        self.trunk = Trunk(base, cut, {} if store is None else store, companies) if cut else None
        self._hidden: Tensor | None = None
        below: list[Forward | None] = [self._enter] * cut
        above: list[Forward | None] = [
            compiled.layer(layer, self.attention) if compiled else None for layer in layers[cut:]
        ]
        if checkpointing:
            above = [
                partial(checkpoint, forward or layer, use_reentrant=False)
                for forward, layer in zip(above, layers[cut:], strict=True)
            ]
        self.body = with_layers(base, below + above)

    def __call__(self, batch: Batch, *, twice: bool = False) -> Tensor:
        """(T,) mean nats per scored token, or a part's share of that; `twice` where a second derivative is needed."""
        rows = self.scored_hidden(batch), self.head, batch.targets, batch.row_task, batch.tasks
        mean_T = plain_cross_entropy(*rows) if twice else task_cross_entropy(*rows, chunk_rows=self.logit_rows)
        return mean_T if batch.share is None else mean_T * batch.share

    @torch.no_grad()
    def score(self, batch: Batch) -> Score:
        """Nats of the answer, of stopping, and exact match, each (T, B).

        What a chat template itself writes before an answer is in neither nats. Exact match needs no generation: greedy
        decoding writes these very tokens if and only if each is the most likely one behind the true ones before it.
        """
        nats_R, greedy_R = score_rows(self.scored_hidden(batch), self.head, batch.targets, chunk_rows=self.logit_rows)
        tasks, examples, length = batch.tokens.shape
        example_R = batch.scored_rows // length
        zeros = torch.zeros(tasks * examples, device=nats_R.device)
        count = zeros.index_add(0, example_R, torch.ones_like(nats_R))
        exact = zeros.index_add(0, example_R, greedy_R.float()) == count
        prefix, end = torch.tensor(batch.around, device=nats_R.device).flatten(0, 1).unbind(1)
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
            raise UserError(too_long(batch.tokens.shape[-1], self.longest, "the longest example of a batch"))
        tokens_NS, positions, scored = batch.tokens.flatten(0, 1), None, batch.scored_rows
        if self.attention is not None:
            self.attention.packing = None
        if self.trunk is not None:
            self._hidden = self.trunk.hidden(batch)
        if self.attention is not None and (packing := batch.packing) is not None:
            self.attention.packing = packing  # until the next batch: a recomputation in the backward wants it too
            tokens_NS, positions, scored = tokens_NS.flatten()[packing.source], packing.positions, packing.scored
            self._hidden = None if self._hidden is None else self._hidden.flatten(0, 1)[packing.source]
        hidden = self.body(input_ids=tokens_NS, position_ids=positions, use_cache=False).last_hidden_state
        self._hidden = None
        return hidden.flatten(0, 1)[scored]

    def fill(self, drawn: Iterable[Sequence[bytes]], device: torch.device, on_company: Progress) -> None:
        """Have the hidden states below the cut of these examples, the keys of a task at a time, before they are read.

        on_company: told how many forwards are done of how many.
        """
        if self.trunk is not None:
            if self.attention is not None:
                self.attention.packing = None
            self.trunk.fill(drawn, device, on_company)

    def _enter(self, *args: object, **kwargs: object) -> Tensor:
        assert self._hidden is not None
        return self._hidden
