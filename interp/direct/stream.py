"""What a run wrote into the residual stream, term by term.

    resid = embed (+ pos_embed) + Σ over earlier layers of (attn_out + mlp_out)

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": every branch adds to the
stream, so whatever reads the stream linearly reads a sum. ``attn_out`` and ``mlp_out`` are what is
added: behind a norm on the branch where the family has one, times the residual multiplier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.direct.terms import Branch, Rest, Term, Whole, frozen
from interp.errors import RunError, SiteError
from interp.models.affine import affine
from interp.runs.cache import Cache
from interp.runs.plan import resolve
from interp.sites import Site
from interp.taps.anatomy import Anatomy

__all__ = ["By", "Outline", "heads_of", "neurons_of", "outline"]

By = Literal["component", "head", "neuron"]
Pick = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Outline:
    """The terms of the stream at one point, before any run.

    Attributes:
        at: the site where the stream is taken.
        by: how finely branches are taken apart.
        attn, mlp: the layers whose attention, or MLP, has written by then.
        neurons: by layer those that get a part of their own; None: all of them.
    """

    anatomy: Anatomy
    at: Site
    by: By
    attn: range
    mlp: range
    neurons: Mapping[int, Sequence[int]] | None = None

    def sites(self) -> list[str]:
        """What a run must save: the terms, and the stream itself.

        Raises:
            SiteError: this model does not have one of them, with the reason.
        """
        attn_point = "z" if self.by == "head" else "attn_out"
        found = ["embed"] + ["pos_embed"] * ("pos_embed" not in self.anatomy.refused)
        found += [f"L{n}.{attn_point}" for n in self.attn]
        if self.by == "neuron":
            found += [f"L{n}.mlp_post" for n in self.mlp if self._chosen(n)]
        if self.by != "neuron" or self.neurons is not None:
            found += [f"L{n}.mlp_out" for n in self.mlp]
        return [str(site) for site in resolve(self.anatomy, [*found, self.at])]

    def _chosen(self, layer: int) -> bool:
        return self.neurons is None or bool(self.neurons.get(layer))

    def terms(self, cache: Cache, pick: Pick) -> list[Term]:
        """The terms in the order in which they are written, at the columns that ``pick`` takes."""

        def read(name: str) -> Tensor:
            x = pick(cache[name])
            return x.to(torch.promote_types(x.dtype, torch.float32))

        found: list[Term] = [
            Whole(name, read(name)) for name in ("embed", "pos_embed")
            if name not in self.anatomy.refused
        ]  # fmt: skip
        for layer in self.attn:
            if self.by == "head":
                found.append(heads_of(self.anatomy, layer, read(f"L{layer}.z")))
            else:
                found.append(Whole(f"L{layer}.attn_out", read(f"L{layer}.attn_out")))
            if layer in self.mlp:
                found.append(self._mlp(layer, read))
        return found

    def _mlp(self, layer: int, read: Callable[[str], Tensor]) -> Term:
        whole = f"L{layer}.mlp_out"
        if self.by != "neuron" or not self._chosen(layer):
            return Whole(whole, read(whole))
        branch = neurons_of(self.anatomy, layer, read(f"L{layer}.mlp_post"))
        if self.neurons is None:
            return branch
        some = branch.only(self.neurons[layer])
        return Rest(f"L{layer}.mlp_rest", Whole(whole, read(whole)), some)


def outline(anatomy: Anatomy, at: str | Site, by: By) -> Outline:
    """Which terms stand in the stream at a point.

    Raises:
        SiteError: ``at`` is not one place on the residual stream.
        RunError: ``by`` is not a way to take branches apart.
    """
    if by not in get_args(By):
        raise RunError(f"by={by!r}; expected one of {', '.join(get_args(By))}.")
    site = Site.parse(f"L{anatomy.n_layers - 1}.resid_post" if str(at) == "final" else at)
    stream = ("resid_pre", "resid_mid", "resid_post")
    single = site.layer is not None and site.layer.single and site.position is None
    if site.point not in stream or not single:
        raise SiteError(
            f"at={str(at)!r} is not one place on the residual stream: expected 'final', or a layer's "
            f"{', '.join(stream)}, such as 'L3.resid_pre'. Positions have an argument of their own."
        )
    (site,) = resolve(anatomy, [site])
    _check_splices(anatomy, by)
    layer = int(str(site.layer.text)) if site.layer is not None else 0
    return Outline(
        anatomy, site, by,
        attn=range(layer + (site.point != "resid_pre")),
        mlp=range(0 if anatomy.attention_only else layer + (site.point == "resid_post")),
    )  # fmt: skip


def _check_splices(anatomy: Anatomy, by: By) -> None:
    """Dictionaries without error nodes put something else in the place of what is taken apart.

    Raises:
        RunError: they do, and parts of the original would be called parts of the run.
    """
    taken = {"component": (), "head": ("attn_out",), "neuron": ("mlp_out",)}[by]
    for splice in anatomy.splices:
        for point, layer in () if splice.errors else splice.writes:
            if point.startswith("resid"):
                raise RunError(
                    f"{splice.name} stands in the residual stream of this run, which is no longer the "
                    "sum of its parts. Use model.replaced(..., error=True), or patch instead."
                )
            if point in taken:
                raise RunError(
                    f"by={by!r}: {splice.name} writes L{layer}.{point} in this run, which is no longer "
                    f"the sum of its {by}s. Use by='component', or model.replaced(..., error=True)."
                )


def heads_of(anatomy: Anatomy, layer: int, z: Float[Tensor, "row pos head d_head"]) -> Branch:
    block = anatomy.blocks[layer]
    norm = block.attn_branch if block.norm_after_attn else None
    names = tuple(f"L{layer}.H{head}.result" for head in range(anatomy.n_heads))
    return _branch(anatomy, names, f"L{layer}.attn_bias", z, block.o, norm)


def neurons_of(anatomy: Anatomy, layer: int, post: Float[Tensor, "row pos neuron"]) -> Branch:
    block = anatomy.blocks[layer]
    norm = block.mlp_branch if anatomy.family.mlp_norm is not None else None
    names = tuple(f"L{layer}.mlp_post.N{unit}" for unit in range(post.shape[-1]))
    return _branch(anatomy, names, f"L{layer}.mlp_bias", post[..., None], block.down, norm)


def _branch(
    anatomy: Anatomy,
    names: tuple[str, ...],
    bias_name: str,
    x: Float[Tensor, "row pos unit d_unit"],
    out: Any,
    norm: nn.Module | None,
) -> Branch:
    written = affine(out)
    matrix, bias = written.matrix.to(x.dtype), written.bias.to(x.dtype)
    branch = Branch(
        names, bias_name, x, matrix.unflatten(0, tuple(x.shape[2:])),
        None if getattr(out, "bias", None) is None else bias,
        anatomy.residual_multiplier,
    )  # fmt: skip
    return frozen(branch, norm, offset=anatomy.family.norm_offset)
