"""Super weights: single numbers without which a model is broken, found in one forward pass.

Large language models have a handful of weights, in the MLPs' down projections of early layers, each of which writes
one huge number into one channel at nearly every text. Setting one of them to 0 harms more than removing thousands of the
largest other weights. They need no data to be found:

1. Run one prompt. In each layer take the input of the down projection (``mlp_post``) and its output.
2. The largest |input| names a *column* (input channel), the largest |output| a *row* (output channel).
3. Where both are beyond a threshold, W[row, column] is a super weight: nothing else could make that spike.
4. Set it to 0 and look again, until no layer has a spike: there may be several.

Coordinates are the paper's, (layer, row, column) of torch's [out, in]: ``W_out[column, row]`` in the layout of
``model.weights``. Llama-7B has (2, 3968, 7003).

Source: Yu et al. 2024, "The super weight in large language models", arXiv:2411.07191, section 3, and the authors'
code (threshold 50, prompt "Apple Inc. is a worldwide tech company.").

Departure: beside both spikes, the weight itself must write most of the output's (``share``), which is the claim;
in the code a layer with two spikes that have nothing to do with each other would be reported. As in the paper, one
look sees one weight of each layer, and a quieter neuron beside a loud one stays hidden: what is silenced is a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError
from interp.models.edited import Edited
from interp.models.model import Model
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Coordinates", "SuperWeights", "largest_weights", "super_weights", "zeroed"]

Coordinates = tuple[int, int, int]  # layer, row (output channel), column (input channel)


@dataclass(frozen=True, eq=False, repr=False)
class SuperWeights(Stored):
    """The largest input and output of each layer's down projection, and the weights between them.

    Attributes:
        found: the super weights, (layer, row, column), strongest spike of the first look first.
        inputs, outputs: the numbers of largest size, with their sign, look by look: each with what was found before set to 0.
        rows, columns: channels of the output and of the input where they stand.
        weights: W[row, column].
        shares: share of the output's spike that this one weight writes, input · W / output at the spike's token;
            1 = all of it.
        threshold: what counts as a spike, in the activation's unit.
        provenance: model, versions and the call.
    """

    found: tuple[Coordinates, ...]
    inputs: Float[Tensor, "look layer"]
    outputs: Float[Tensor, "look layer"]
    rows: Int[Tensor, "look layer"]
    columns: Int[Tensor, "look layer"]
    weights: Float[Tensor, "look layer"]
    shares: Float[Tensor, "look layer"]
    threshold: float
    provenance: Provenance

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.found)) or "none"
        top = float(self.outputs[0].abs().max())
        return f"SuperWeights({names}; largest output {top:.3g}, threshold {self.threshold:g})"

    def to_frame(self) -> DataFrame:
        """One row for each look and layer, with what was found marked ``super``."""
        import pandas as pd

        looks, layers = self.inputs.shape
        frame: dict[str, Any] = {
            "look": [i for i in range(looks) for _ in range(layers)],
            "layer": list(range(layers)) * looks,
        }
        for name, values in (
            ("input", self.inputs), ("output", self.outputs), ("row", self.rows),
            ("column", self.columns), ("weight", self.weights), ("share", self.shares),
        ):  # fmt: skip
            frame[name] = values.flatten().tolist()
        at = zip(frame["layer"], frame["row"], frame["column"], strict=True)
        frame["super"] = [one in self.found for one in at]
        return pd.DataFrame(frame)

    def without(self, model: Model) -> Edited:
        """A ``with`` block in which the super weights are 0; the model is as before afterwards.

        Raises:
            ModelError: there are none, or another model.
        """
        if not self.found:
            raise ModelError("no super weight was found, so there is none to set to 0.")
        if model.weights_hash != self.provenance.weights_hash:
            raise ModelError(
                f"these super weights are of {self.provenance.model!r}; {model.name!r} has other weights. "
                "For other coordinates use model.edited(zeroed([...]))."
            )
        return model.edited(zeroed(self.found))

    def plot(self, *, title: str | None = None) -> Figure:
        """The largest |input| and |output| of each layer at the first look, with the threshold."""
        from interp.figures import lines

        layers = self.inputs.shape[1]
        return lines(
            [str(layer) for layer in range(layers)],
            {"input": self.inputs[0].abs().tolist(), "output": self.outputs[0].abs().tolist(),
             "threshold": [self.threshold] * layers},
            x_name="layer", y_name="largest |activation|", bottom=0.0,
            title=title or "What goes into and out of each down projection",
        )  # fmt: skip


@torch.no_grad()
def super_weights(
    model: Model, inputs: Any, *, threshold: float = 50.0, share: float = 0.5, looks: int = 5
) -> SuperWeights:
    """Find the super weights that one prompt (or a few) shows.

    >>> found = super_weights(model, "Apple Inc. is a worldwide tech company.")   # doctest: +SKIP
    >>> with found.without(model): loss_without = ...                            # doctest: +SKIP

    Args:
        inputs: whatever ``model.run`` takes; one short text is enough.
        threshold: least |input| and |output| that count as a spike. The paper's 50 suits models whose other
            activations are a few units: look at the plot.
        share: least share of the output's spike that the weight must write by itself.
        looks: at most this many passes: after each, what was found is set to 0.

    Raises:
        ModelError: options out of range.
        SiteError: MLPs without one down projection (mixtures of experts).
    """
    if looks < 1 or not threshold > 0 or not 0 <= share < 1:
        raise ModelError(
            f"super_weights(threshold={threshold}, share={share}, looks={looks}); expected a threshold above 0, a "
            "share from 0 to below 1, and 1 look at least."
        )
    provenance = Provenance.of(
        model, inputs, verb="super_weights", threshold=threshold, share=share, looks=looks
    )
    tokens = model.batch(inputs)
    found: list[Coordinates] = []
    seen: list[tuple[Tensor, ...]] = []
    for _ in range(looks):
        with model.edited(zeroed(found)):
            seen.append(_look(model, tokens))
        new = _spikes(seen[-1], threshold, share)
        new = [one for one in new if one not in found]
        found += new
        if not new:
            break
    put, out, rows, columns, weights, shares = (torch.stack(one) for one in zip(*seen, strict=True))
    return SuperWeights(
        tuple(found), put, out, rows, columns, weights, shares, threshold, provenance
    )


def _look(model: Model, tokens: Any) -> tuple[Tensor, ...]:
    """Of each layer: input, output, row, column, weight and share."""
    sites = [f"L{i}.mlp_post" for i in range(model.n_layers)]
    cache = model.run(tokens, save=sites, logits="none").cache
    real, layers = tokens.mask, []
    for i, site in enumerate(sites):
        at = model.weights.layer(i)
        w, b = (x.as_subclass(Tensor).float() for x in (at.W_out, at.b_out))
        x = cache[site][real].to(w)  # [token, d_mlp]
        y = x @ w + b
        column = int(x.abs().amax(0).argmax())
        token, row = divmod(int(y.abs().argmax()), y.shape[1])
        output = y[token, row]
        wrote = x[token, column] * w[column, row] / output if output != 0 else output
        token_in = int(x[:, column].abs().argmax())
        layers.append((x[token_in, column], output, row, column, w[column, row], wrote))
    columns = list(zip(*layers, strict=True))
    return tuple(
        torch.tensor([int(v) if i in (2, 3) else float(v) for v in one])
        for i, one in enumerate(columns)
    )


def _spikes(look: tuple[Tensor, ...], threshold: float, share: float) -> list[Coordinates]:
    put, out, rows, columns, _, shares = look
    beyond = (put.abs() > threshold) & (out.abs() > threshold) & (shares > share)
    places = sorted(beyond.nonzero().flatten().tolist(), key=lambda i: -float(out[i].abs()))
    return [(i, int(rows[i]), int(columns[i])) for i in places]


def zeroed(coordinates: Iterable[Coordinates]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Edits for ``model.edited`` that set single weights of down projections to 0."""
    by_layer: dict[int, list[tuple[int, int]]] = {}
    for layer, row, column in coordinates:
        by_layer.setdefault(layer, []).append((column, row))

    def edit(places: list[tuple[int, int]]) -> Callable[[Tensor], Tensor]:
        def apply(w: Tensor) -> Tensor:
            if any(c >= w.shape[0] or r >= w.shape[1] or min(c, r) < 0 for c, r in places):
                raise ModelError(
                    f"zeroed() got (row, column) {[(r, c) for c, r in places]} of a down projection with "
                    f"{w.shape[1]} rows and {w.shape[0]} columns."
                )
            for c, r in places:
                w[c, r] = 0
            return w

        return apply

    return {f"L{layer}.W_out": edit(places) for layer, places in by_layer.items()}


def largest_weights(
    model: Model, n: int, *, without: Iterable[Coordinates] = ()
) -> tuple[Coordinates, ...]:
    """The n weights of all down projections with the largest |W|, largest first: the paper's control.

    Args:
        without: coordinates to leave out, such as the super weights.

    Raises:
        ModelError: fewer weights than that, or MLPs without one down projection.
    """
    left_out = set(without)
    w = torch.stack(
        [model.weights.layer(i).W_out.as_subclass(Tensor).abs() for i in range(model.n_layers)]
    )
    if not 1 <= n <= w.numel() - len(left_out):
        raise ModelError(
            f"largest_weights(n={n}) of {w.numel()} weights; expected 1 or more that are left."
        )
    _, d_mlp, d_model = w.shape
    order = w.flatten().topk(n + len(left_out)).indices.tolist()
    places = [(i // (d_mlp * d_model), i % d_model, i // d_model % d_mlp) for i in order]
    return tuple(place for place in places if place not in left_out)[:n]
