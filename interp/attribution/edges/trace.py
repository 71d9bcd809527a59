"""A run that is differentiated at everything that reads the residual stream.

One forward pass with frozen weights and one backward pass. The gradient with respect to what one
destination reads is made from the gradient at its own queries, keys, values or MLP input, through
the weights that read there and the norm before them; no copy of the stream is made for any head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp import metrics
from interp.engine.kernels import replay_kernels
from interp.errors import MetricError
from interp.graph import Setting
from interp.graph.contributions import contributions, sites_read
from interp.runs.execute import forward
from interp.runs.frozen import frozen
from interp.runs.plan import resolve
from interp.taps.hooks import Fn
from interp.taps.points import Key, tapped
from interp.token_batch import TokenBatch

__all__ = ["Reading", "Trace", "trace"]


@dataclass(frozen=True, eq=False)
class Reading:
    """Neighbouring destinations, and the metric's gradient at what each of them reads.

    Attributes:
        dests: which they are, among the graph's.
        sources: how many sources write before they read.
        gradient: of the sum of the prompts' scores; a prompt's row is its own.
    """

    dests: slice
    sources: int
    gradient: Float[Tensor, "dest prompt pos d_model"]


@dataclass(frozen=True, eq=False)
class Trace:
    """Some prompts' run, with its graph.

    Attributes:
        scores: one for each prompt.
        seen: tensors of the run by point and layer; keys and values have a row for each query head.
        mask: where the prompts' tokens are real.
    """

    setting: Setting
    scores: Float[Tensor, " prompt"]
    seen: dict[Key, Tensor]
    mask: Tensor

    def written(self) -> Float[Tensor, "source prompt pos d_model"]:
        """What each source wrote."""
        own = self.setting
        with torch.no_grad():
            return contributions(
                own.graph, own.parts, lambda point, layer: self.seen[point, layer].detach()
            )

    def readings(self) -> Iterator[Reading]:
        """One backward pass; then block by block what is read, from the first block on."""
        graph, parts = self.setting.graph, self.setting.parts
        inputs = [key for key in self.seen if key[0] in _READ or key == ("resid_post", None)]
        found = dict(zip(inputs, torch.autograd.grad(
            self.scores, [self.seen[key] for key in inputs],
            torch.ones_like(self.scores), materialize_grads=True,
        ), strict=True))  # fmt: skip
        for layer in range(graph.n_layers):
            norm = parts.before_attention(layer)
            for channel, (point, dests) in enumerate(
                zip("qkv", graph.reads_at(layer), strict=False)
            ):
                matrix = parts.projection(layer, channel)[0]
                inner = torch.einsum("bphe,hde->hbpd", found.pop((point, layer)), matrix)
                gradient = self._through(norm, ("resid_pre", layer), inner)
                yield Reading(dests, graph.heads_at(layer).start, gradient)
            if graph.mlps:
                yield self._mlp(layer, found)
        last = len(graph.dests) - 1
        end = self._real(found["resid_post", None][None])
        yield Reading(slice(last, last + 1), len(graph.sources), end)

    def _mlp(self, layer: int, found: dict[Key, Tensor]) -> Reading:
        graph, parts = self.setting.graph, self.setting.parts
        dests = graph.reads_at(layer)[3]
        inner = found.pop(("mlp.input", layer))[None]
        stream = ("resid_pre" if graph.parallel else "resid_mid", layer)
        gradient = self._through(parts.before_mlp(layer), stream, inner)
        sources = graph.mlps_at(layer).start if not graph.parallel else graph.heads_at(layer).start
        return Reading(dests, sources, gradient)

    def _through(self, norm: nn.Module | None, stream: Key, inner: Tensor) -> Tensor:
        x = self.seen[stream].detach()
        return self._real(self.setting.parts.backward(norm, x, inner))

    def _real(self, gradient: Tensor) -> Tensor:
        """0 at padding, which no real token sees."""
        return gradient if bool(self.mask.all()) else gradient * self.mask[..., None]


#: What destinations in the blocks compute first from what they read.
_READ = ("q", "k", "v", "mlp.input")


def trace(
    setting: Setting,
    rows: slice,
    tokens: TokenBatch,
    *,
    embed: Float[Tensor, "prompt pos d_model"] | None = None,
) -> Trace:
    """Run some prompts with a graph.

    Args:
        tokens: those prompts' side that edges are ablated in.
        embed: what stands in the place of their token embeddings.

    Raises:
        MetricError: the scores have no gradient.
    """
    anatomy, seen = setting.model.anatomy, dict[Key, Tensor]()
    functions = _functions(setting, seen)
    start = functions[("embed", None)]
    functions["embed", None] = lambda x: start(
        (x if embed is None else embed.to(x)).detach().requires_grad_()
    )
    with ExitStack() as stack:
        stack.enter_context(frozen(anatomy.hf))
        stack.enter_context(torch.enable_grad())
        if anatomy.n_kv_heads != anatomy.n_heads:
            stack.enter_context(replay_kernels(anatomy))
        stack.enter_context(tapped(anatomy, functions))
        logits = forward(anatomy, tokens, last=setting.metric.positions == "answer")
    with torch.enable_grad():
        scores = scored(setting, rows, logits)
    if not scores.requires_grad:
        raise MetricError(
            f"metric {setting.metric.name!r} returned scores without a graph, so there is no gradient "
            "to attribute by: use a differentiable metric such as 'logit_diff', or method='exact'."
        )
    return Trace(setting, scores, seen, tokens.mask)


def scored(
    setting: Setting, rows: slice, logits: Float[Tensor, "prompt pos d_vocab"]
) -> Float[Tensor, " prompt"]:
    """The metric of some prompts' run on the side that edges are ablated in."""
    prompts, metric = setting.prompts.subset(rows), setting.metric
    side = "clean" if setting.direction == "noise" else "corrupted"
    if metric.positions == "all":
        return metrics.evaluate(metric, logits, prompts, side=side)  # type: ignore[arg-type]
    reference = None
    if metric.needs_reference:
        reference = setting.model.run(prompts.clean, logits="last").logits[:, 0]
    return metrics.at_answer(metric, logits[:, 0], prompts, reference=reference)


def _functions(setting: Setting, seen: dict[Key, Tensor]) -> dict[Key, Fn]:
    """Keep what is written and read; keys and values get a row for each query head."""
    graph, anatomy = setting.graph, setting.model.anatomy
    names = [*sites_read(graph), "L*.resid_pre"] + [f"L*.{point}" for point in "qkv"]
    if graph.mlps:
        names += ["L*.mlp.input"] + ([] if graph.parallel else ["L*.resid_mid"])
    keys: list[Key] = [("resid_post", graph.n_layers - 1)]
    for site in resolve(anatomy, names):
        layers = (None,) if site.layer is None else site.layer.expand(graph.n_layers, "layer")
        keys += [(site.point, layer) for layer in layers]

    def keep(key: Key) -> Fn:
        def apply(x: Tensor) -> Tensor:
            if key[0] in ("k", "v") and x.shape[2] != graph.n_heads:
                x = x.repeat_interleave(graph.n_heads // x.shape[2], 2)
            seen[("resid_post", None) if key[0] == "resid_post" else key] = x
            return x

        return apply

    return {key: keep(key) for key in keys}
