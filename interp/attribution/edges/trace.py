"""A run that is differentiated at everything that reads the residual stream.

One forward pass with frozen weights and one backward pass. The gradient with respect to what one
destination reads is made from the gradient at its own queries, keys, values or MLP input, through
the weights that read there and the norm before them; no copy of the stream is made for any head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp import metrics
from interp.engine.kernels import replay_kernels
from interp.errors import GraphError, MetricError
from interp.graph import Setting
from interp.graph.contributions import contributions, sites_read
from interp.graph.grouped import by_query_head, tells_heads_apart
from interp.graph.slab import held_scales
from interp.graph.units import units_at
from interp.runs.execute import forward
from interp.runs.frozen import frozen
from interp.runs.plan import resolve
from interp.taps.hooks import Fn
from interp.taps.points import Key, tapped
from interp.taps.unembed import unembed
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
        held: what norms divided by, where that is another run's.
    """

    setting: Setting
    scores: Float[Tensor, " prompt"]
    seen: dict[Key, Tensor]
    mask: Tensor
    held: Mapping[Key, Tensor] = field(default_factory=dict)

    def written(self) -> Float[Tensor, "source prompt pos d_model"]:
        """What each source wrote."""
        own = self.setting
        with torch.no_grad():
            return contributions(
                own.graph, own.parts, lambda point, layer: self.seen[point, layer].detach()
            )

    def scales(self) -> dict[Key, Float[Tensor, "prompt pos 1"]]:
        """What every norm divided by, where that is held in other runs."""
        own = self.setting
        read = lambda point, layer: self.seen[  # noqa: E731
            (point, None) if point == "resid_post" else (point, layer)
        ].detach()
        return held_scales(own.graph, own.parts, read, 0)

    @torch.no_grad()
    def emptied(
        self, rows: slice, tokens: TokenBatch, change: Float[Tensor, "source prompt pos d_model"]
    ) -> Float[Tensor, " prompt"] | None:
        """Scores with every edge ablated: all that the logits read is ``change``d, whatever the
        nodes before them do. None where the final norm is to divide by another stream's scale,
        where next to nothing is left of the stream, and of models known from whole runs alone."""
        own, anatomy = self.setting, self.setting.model.anatomy
        if own.ablation != "resample" or own.parts.frozen or own.reason is not None:
            return None
        stream = self.seen["resid_post", None].detach()
        if own.metric.positions == "answer":
            at = torch.arange(len(stream), device=stream.device), tokens.column(-1)
            stream, change = stream[at][:, None], change[:, at[0], at[1]][:, :, None]
        logits = unembed(anatomy, stream + change.sum(0).to(stream))
        return scored(own, rows, logits)

    def gradients(self, *, keep: bool = False) -> dict[Key, Tensor]:
        """One backward pass: the metric's gradient at what destinations compute first, and at
        patterns if they were asked for; ``keep`` the graph for another."""
        inputs = [key for key in self.seen if key[0] in _READ or key == ("resid_post", None)]
        found = torch.autograd.grad(
            self.scores, [self.seen[key] for key in inputs], torch.ones_like(self.scores),
            retain_graph=keep or bool(self.setting.graph.units), materialize_grads=True,
        )  # fmt: skip
        return dict(zip(inputs, found, strict=True))

    def readings(
        self,
        found: dict[Key, Tensor] | None = None,
        *,
        first: int = 0,
        channels: str = "qkv",
    ) -> Iterator[Reading]:
        """Block by block what is read, from block ``first`` on.

        Args:
            found: what :meth:`gradients` gave; None: one backward pass. It is used up.
            channels: which inputs of heads; neighbours, as they stand in ``"qkv"``.
        """
        graph = self.setting.graph
        found = self.gradients() if found is None else found
        for layer in range(first, graph.n_layers):
            yield self._heads(layer, found, channels)
            if graph.mlps:
                yield self._mlp(layer, found)
        last = len(graph.dests) - 1
        end = self._real(found["resid_post", None][None])
        yield Reading(slice(last, last + 1), len(graph.sources), end)

    def _heads(self, layer: int, found: dict[Key, Tensor], channels: str) -> Reading:
        graph, parts = self.setting.graph, self.setting.parts
        chosen = ["qkv".index(point) for point in channels]
        dests = [graph.reads_at(layer)[channel] for channel in chosen]
        own = torch.cat([found.pop((point, layer)) for point in channels], 2)
        matrix = torch.cat([parts.projection(layer, channel)[0] for channel in chosen])
        inner = torch.einsum("bphe,hde->hbpd", own, matrix)
        norm = parts.before_attention(layer)
        gradient = self._through(norm, "ln1.scale", ("resid_pre", layer), inner)
        return Reading(slice(dests[0].start, dests[-1].stop), graph.heads_at(layer).start, gradient)

    def _mlp(self, layer: int, found: dict[Key, Tensor]) -> Reading:
        graph, parts = self.setting.graph, self.setting.parts
        dests = graph.reads_at(layer)[3]
        inner = self._units(layer, found.pop(("mlp.input", layer)), found)
        stream = ("resid_pre" if graph.parallel else "resid_mid", layer)
        norm = parts.before_mlp(layer)
        name = "ln1.scale" if norm is parts.before_attention(layer) else "ln2.scale"
        gradient = self._through(norm, name, stream, inner)
        sources = graph.mlps_at(layer).start if not graph.parallel else graph.heads_at(layer).start
        return Reading(dests, sources, gradient)

    def _units(
        self, layer: int, whole: Float[Tensor, "prompt pos d_model"], found: dict[Key, Tensor]
    ) -> Float[Tensor, "dest prompt pos d_model"]:
        """The gradient at the input of an MLP, as the rest of it and each of its units read it."""
        point, own = units_at(self.setting.graph, layer)
        if not own:
            return whole[None]
        post, behind = self.seen[point, layer], found.pop((point, layer))
        each: list[Tensor] = []
        for n in own:
            alone = torch.zeros_like(behind)
            alone[..., n] = behind[..., n]
            inner = self.seen["mlp.input", layer]
            each += torch.autograd.grad(post, inner, alone, retain_graph=True)
        return torch.stack([whole - torch.stack(each).sum(0), *each])

    def _through(self, norm: nn.Module | None, name: str, stream: Key, inner: Tensor) -> Tensor:
        x, held = self.seen[stream].detach(), self.held.get((name, stream[1]))
        return self._real(self.setting.parts.backward(norm, x, inner, held))

    def _real(self, gradient: Tensor) -> Tensor:
        """0 at padding, which no real token sees."""
        return gradient if bool(self.mask.all()) else gradient * self.mask[..., None]


#: What destinations in the blocks compute first from what they read; patterns, if asked for.
_READ = ("q", "k", "v", "mlp.input", "mlp_post", "mlp", "pattern")


def trace(
    setting: Setting,
    rows: slice,
    tokens: TokenBatch,
    *,
    embed: Float[Tensor, "prompt pos d_model"] | None = None,
    edits: Mapping[Key, Fn] | None = None,
    held: Mapping[Key, Float[Tensor, "prompt pos 1"]] | None = None,
    patterns: bool = False,
) -> Trace:
    """Run some prompts with a graph. If norms are frozen, no gradient passes their scales.

    Args:
        tokens: those prompts' side that edges are ablated in.
        embed: what stands in the place of their token embeddings.
        edits: functions at other sites of the run.
        held: what norms divide by, if they are frozen; None: what their inputs give.
        patterns: keep attention patterns too.

    Raises:
        MetricError: the scores have no gradient.
        GraphError: keys and values of single query heads cannot be told apart.
    """
    anatomy, seen = setting.model.anatomy, dict[Key, Tensor]()
    if not tells_heads_apart(anatomy):
        raise GraphError(
            f"in a model of type {anatomy.name!r} groups of query heads share keys and values in a way "
            "that cannot be taken apart, so the edges into them have no gradients of their own."
        )
    functions = _functions(setting, seen, patterns=patterns)
    functions |= _frozen_norms(setting, held or {})
    for key, edit in (edits or {}).items():
        functions[key] = _both(edit, functions.get(key))
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
    return Trace(setting, scores, seen, tokens.mask, held or {})


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


def _frozen_norms(setting: Setting, held: Mapping[Key, Tensor]) -> dict[Key, Fn]:
    if not setting.parts.frozen:
        return {}
    anatomy, graph = setting.model.anatomy, setting.graph
    keys: list[Key] = [("ln_final.scale", None)] if anatomy.ln_final is not None else []
    for layer, block in enumerate(anatomy.blocks):
        keys += [("ln1.scale", layer)] if block.ln1 is not None else []
        keys += [("ln2.scale", layer)] if block.ln2 is not None and graph.mlps else []

    def hold(key: Key) -> Fn:
        return lambda own: held.get(key, own).detach().to(own.dtype)

    return {key: hold(key) for key in keys}


def _both(first: Fn, then: Fn | None) -> Fn:
    return first if then is None else lambda x: then(first(x))


def _functions(setting: Setting, seen: dict[Key, Tensor], *, patterns: bool) -> dict[Key, Fn]:
    """Keep what is written and read; keys and values get a row for each query head."""
    graph, anatomy = setting.graph, setting.model.anatomy
    names = [*sites_read(graph), "L*.resid_pre"] + [f"L*.{point}" for point in "qkv"]
    if graph.mlps:
        names += ["L*.mlp.input"] + ([] if graph.parallel else ["L*.resid_mid"])
    names += ["L*.pattern"] if patterns else []
    keys: list[Key] = [("resid_post", graph.n_layers - 1)]
    for site in resolve(anatomy, names):
        layers = (None,) if site.layer is None else site.layer.expand(graph.n_layers, "layer")
        keys += [(site.point, layer) for layer in layers]

    def keep(key: Key) -> Fn:
        def apply(x: Tensor) -> Tensor:
            if key[0] in ("k", "v"):
                x = by_query_head(x, graph.n_heads)
            seen[("resid_post", None) if key[0] == "resid_post" else key] = x
            return x

        return apply

    return {key: keep(key) for key in keys}
