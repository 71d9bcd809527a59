"""The kinds of tensors that a run has: short names, TransformerLens's names, axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BY_HOOK", "HOSTS", "POINTS", "Point"]


@dataclass(frozen=True, slots=True)
class Point:
    """One kind of tensor: its short name, its TransformerLens name, and its axes."""

    name: str
    hook: str
    axes: tuple[str, ...]
    units: str = ""  # the letter under which the last axis may be indexed: N or F

    @property
    def layered(self) -> bool:
        """Whether each block has one of these."""
        return "{layer}" in self.hook

    @property
    def spliced(self) -> bool:
        """Whether it is there only where a dictionary stands in the run (``model.replaced``)."""
        return self.axes[-1] == "d_sae" or self.name.endswith(".error")

    @property
    def host(self) -> str:
        """The point that features or an error belong to; every other point is its own."""
        return self.name.removesuffix(".features").removesuffix(".error")

    @property
    def headed(self) -> bool:
        """Whether one of the axes counts heads."""
        return "head" in self.axes or "kv_head" in self.axes

    @property
    def head_axis(self) -> int:
        """The axis that counts heads (query heads, or key-value heads for ``k`` and ``v``)."""
        return next(i for i, axis in enumerate(self.axes) if axis in ("head", "kv_head"))


def _points() -> dict[str, Point]:
    stream, block = ("batch", "pos", "d_model"), "blocks.{layer}."
    query, keyed = ("batch", "pos", "head", "d_head"), ("batch", "pos", "kv_head", "d_head")
    square = ("batch", "head", "query", "key")
    rows: list[tuple[str, str, tuple[str, ...], str]] = [
        ("embed", "hook_embed", stream, ""),
        ("pos_embed", "hook_pos_embed", stream, ""),
        ("resid_pre", block + "hook_resid_pre", stream, ""),
        ("ln1.scale", block + "ln1.hook_scale", ("batch", "pos", "one"), ""),
        ("ln1.normalized", block + "ln1.hook_normalized", stream, ""),
        ("attn.input", block + "attn.hook_in", stream, ""),
        ("q", block + "attn.hook_q", query, ""),
        ("k", block + "attn.hook_k", keyed, ""),
        ("v", block + "attn.hook_v", keyed, ""),
        ("rot_q", block + "attn.hook_rot_q", query, ""),
        ("rot_k", block + "attn.hook_rot_k", keyed, ""),
        ("attn_scores", block + "attn.hook_attn_scores", square, ""),
        ("pattern", block + "attn.hook_pattern", square, ""),
        ("z", block + "attn.hook_z", query, ""),
        ("result", block + "attn.hook_result", ("batch", "pos", "head", "d_model"), ""),
        ("attn_out", block + "hook_attn_out", stream, ""),
        ("resid_mid", block + "hook_resid_mid", stream, ""),
        ("ln2.scale", block + "ln2.hook_scale", ("batch", "pos", "one"), ""),
        ("ln2.normalized", block + "ln2.hook_normalized", stream, ""),
        ("mlp.input", block + "mlp.hook_in", stream, ""),
        ("mlp_pre", block + "mlp.hook_pre", ("batch", "pos", "d_mlp"), "N"),
        ("mlp_post", block + "mlp.hook_post", ("batch", "pos", "d_mlp"), "N"),
        ("mlp_out", block + "hook_mlp_out", stream, ""),
        ("mlp", block + "mlp.dictionary", ("batch", "pos", "d_sae"), "F"),
        ("resid_post", block + "hook_resid_post", stream, ""),
        ("ln_final.scale", "ln_final.hook_scale", ("batch", "pos", "one"), ""),
        ("ln_final.normalized", "ln_final.hook_normalized", stream, ""),
        ("logits", "unembed.hook_out", ("batch", "pos", "d_vocab"), ""),
    ]
    points = [Point(*row) for row in rows]
    return {one.name: one for point in points for one in (point, *_of_a_dictionary(point))}


def _of_a_dictionary(point: Point) -> list[Point]:
    """Features and error of a dictionary that stands at a point, under SAELens's names.

    An error has the axes of what it is added to.
    """
    features = f"{point.hook}.hook_sae_acts_post", ("batch", "pos", "d_sae"), "F"
    error = f"{point.name}.error", f"{point.hook}.hook_sae_error"
    if point.name == "mlp":  # its own values are the features; the error is one of mlp_out
        return [Point(*error, ("batch", "pos", "d_model"))]
    if point.name not in HOSTS:
        return []
    return [Point(f"{point.name}.features", *features), Point(*error, point.axes)]


#: Where an SAE can stand, and what a transcoder can read and write.
HOSTS: Final = (
    "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "attn.input", "mlp.input",
    "mlp_pre", "mlp_post", "z", "ln1.normalized", "ln2.normalized",
)  # fmt: skip
POINTS: Final[dict[str, Point]] = _points()
#: The same by their long names, without the block.
BY_HOOK: Final = {p.hook.removeprefix("blocks.{layer}."): p for p in POINTS.values()}
