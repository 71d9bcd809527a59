"""MLPs: the three networks whose papers need no attention, as plain modules with readable insides.

    QuadraticMLP      f(a, b) = W (U e_a + V e_b)²            no bias         (Doshi et al. 2023; Gromov 2023)
    ReluMLP           two hidden ReLU layers on [e_a; e_b]    200-200         (Prieto et al. 2025)
    TiedAutoencoder   y = relu(x W Wᵀ + b)                    n into m < n    (Elhage et al. 2022; Liu et al. 2025)

``model.activations(inputs)`` gives what stands between input and output by name; a forward hook on the
module ``hook_hidden`` (or ``hook_pre``) reads or replaces the same tensor. Initial weights come from
``seed`` alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from interp.errors import ToyError
from interp.geometry import inverse_participation_ratio

__all__ = ["QuadraticMLP", "ReluMLP", "TiedAutoencoder"]


class _Readable(nn.Module):
    """A module whose ``hook_*`` children see its activations."""

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """What each hook point holds on these inputs, by name without "hook_"; and the output, as "out"."""
        seen: dict[str, Tensor] = {}
        points = {name: one for name, one in self.named_children() if name.startswith("hook_")}
        handles = [
            one.register_forward_hook(
                lambda _module, _args, out, name=name: seen.__setitem__(name[5:], out)
            )
            for name, one in points.items()
        ]
        try:
            seen["out"] = self(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return seen


class QuadraticMLP(_Readable):
    """Pairs of ids [batch, 2] → logits [batch, p], by ``width`` neurons that square their input.

    Modular addition has an exact solution of this form, with each neuron a wave of one frequency
    (Gromov 2023, arXiv:2301.02679). A neuron's weights are a row of ``U`` and of ``V`` and a column of ``W``.

    Hook points: ``hook_pre`` and ``hook_hidden``, [batch, width].

    Args:
        p: ids; also classes.
        width: neurons, the papers' N.
        std: of the initial weights; None: 0.5 / (2 width)^(1/3), as in the code of Doshi et al. 2023,
            with which outputs are small at first.

    Source:
        Doshi et al. 2023, "To grok or not to grok", arXiv:2310.13061.
    """

    def __init__(
        self, p: int, *, width: int = 500, std: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        _positive(p=p, width=width)
        self.p, self.width = p, width
        std = 0.5 / (2 * width) ** (1 / 3) if std is None else std
        draw = torch.Generator().manual_seed(seed)
        self.U = nn.Parameter(std * torch.randn(width, p, generator=draw))
        self.V = nn.Parameter(std * torch.randn(width, p, generator=draw))
        self.W = nn.Parameter(std * torch.randn(p, width, generator=draw))
        self.hook_pre, self.hook_hidden = nn.Identity(), nn.Identity()

    def forward(self, inputs: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch p"]:
        both = torch.cat([self.U, self.V], 1)
        pre = self.hook_pre(_one_hot_pairs(inputs, self.p, both) @ both.T)
        return self.hook_hidden(pre.square()) @ self.W.T

    def waves(self) -> tuple[Float[Tensor, "width p"], ...]:
        """Each neuron's weights as three functions of an id: of a, of b and of the answer."""
        return self.U.detach(), self.V.detach(), self.W.detach().T

    def ipr(self) -> Float[Tensor, " width"]:
        """How periodic each neuron is: its inverse participation ratio, mean over its three functions.

        1 = one frequency in each, as in the exact solution; about 4 / p where there is no structure.
        Neurons that generalise are periodic and those that memorise are not (Doshi et al. 2023).
        """
        return torch.stack([inverse_participation_ratio(wave) for wave in self.waves()]).mean(0)

    def without(
        self, neurons: Int[Tensor, " k"] | Bool[Tensor, " width"] | Sequence[int]
    ) -> QuadraticMLP:
        """A copy in which these neurons write nothing: their numbers, or a mask such as ``mlp.ipr() < 0.3``.

        Raises:
            ToyError: a number that is no neuron's, or a mask of another width.
        """
        chosen = torch.as_tensor(neurons)
        if chosen.dtype == torch.bool:
            if chosen.shape != (self.width,):
                raise ToyError(
                    f"without() got a mask of {list(chosen.shape)}; expected [{self.width}]."
                )
            chosen = chosen.nonzero()[:, 0]
        chosen = chosen.long()
        if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < self.width:
            raise ToyError(f"without() got neurons outside 0 to {self.width - 1}.")
        pruned = copy.deepcopy(self)
        with torch.no_grad():
            pruned.W[:, chosen] = 0
        return pruned


class ReluMLP(_Readable):
    """Pairs of ids [batch, 2] → logits [batch, classes], through hidden ReLU layers on both one-hots.

    Hook points: ``hook_hidden0``, ``hook_hidden1``, ..., [batch, width].

    Args:
        p: ids.
        classes: None: p.
        widths: of the hidden layers.
        scale: the output is multiplied by it. Large: features hardly move before the training set is
            fitted (lazy), small: they move at once (rich); Kumar et al. 2023, arXiv:2310.06110.
        readout: a module [batch, width] → [batch, classes] in place of the last linear layer, such as
            :class:`interp.toys.losses.HarmonicReadout`.

    Source:
        Prieto et al. 2025, arXiv:2501.04697: two hidden layers of 200. Weights start as torch's
        linear layers do, uniform within ±1/√fan-in, biases too.
    """

    def __init__(
        self,
        p: int,
        *,
        classes: int | None = None,
        widths: Sequence[int] = (200, 200),
        scale: float = 1.0,
        readout: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not widths:
            raise ToyError("ReluMLP(widths=()); expected at least one hidden layer.")
        _positive(p=p, **{f"widths[{i}]": width for i, width in enumerate(widths)})
        self.p, self.scale = p, scale
        sizes = [2 * p, *widths]
        draw = torch.Generator().manual_seed(seed)
        self.hidden = nn.ModuleList(_linear(a, b, draw) for a, b in pairwise(sizes))
        for i in range(len(widths)):
            self.add_module(f"hook_hidden{i}", nn.Identity())
        last = _linear(sizes[-1], classes or p, draw)
        self.readout = last if readout is None else readout

    def forward(self, inputs: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch classes"]:
        x = _one_hot_pairs(inputs, self.p, next(self.parameters()))
        for i, layer in enumerate(self.hidden):
            x = self.get_submodule(f"hook_hidden{i}")(torch.relu(layer(x)))
        out = self.readout(x)
        return out if self.scale == 1 else self.scale * out


class TiedAutoencoder(_Readable):
    """Features [batch, n] → features [batch, n] by way of m dimensions: relu(x W Wᵀ + b).

    Row i of ``W`` is how feature i stands in the m dimensions; rows that are not orthogonal interfere.

    Hook points: ``hook_hidden`` [batch, m] and ``hook_pre`` [batch, n] (before the ReLU).

    Args:
        n: features.
        m: dimensions they share.

    Source:
        Elhage et al. 2022, "Toy models of superposition", arXiv:2209.10652; here as in Liu, Liu & Gore
        2025, arXiv:2505.10465. Rows start normal with norm about 1.
    """

    def __init__(self, n: int, m: int, *, seed: int = 0) -> None:
        super().__init__()
        _positive(n=n, m=m)
        self.n, self.m = n, m
        draw = torch.randn(n, m, generator=torch.Generator().manual_seed(seed))
        self.W = nn.Parameter(draw / m**0.5)
        self.b = nn.Parameter(torch.zeros(n))
        self.hook_hidden, self.hook_pre = nn.Identity(), nn.Identity()

    def forward(self, inputs: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        hidden = self.hook_hidden(inputs @ self.W)
        return torch.relu(self.hook_pre(hidden @ self.W.T + self.b))


def _one_hot_pairs(
    inputs: Int[Tensor, "batch 2"], p: int, like: Tensor
) -> Float[Tensor, "batch p2"]:
    """[e_a; e_b] of each pair, in the dtype of ``like``.

    Raises:
        ToyError: inputs that are no pairs of ids.
    """
    if inputs.ndim != 2 or inputs.shape[1] != 2 or inputs.is_floating_point():
        raise ToyError(
            f"inputs of shape {list(inputs.shape)} ({inputs.dtype}); expected pairs of ids [batch, 2]."
        )
    if inputs.numel() and not 0 <= int(inputs.min()) <= int(inputs.max()) < p:
        raise ToyError(
            f"ids from {int(inputs.min())} to {int(inputs.max())}; expected 0 to {p - 1}."
        )
    return F.one_hot(inputs, p).flatten(1).to(like.dtype)


def _linear(fan_in: int, fan_out: int, draw: torch.Generator) -> nn.Linear:
    """A linear layer as torch makes it, but of one generator."""
    layer, bound = nn.utils.skip_init(nn.Linear, fan_in, fan_out), fan_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=draw)
        layer.bias.uniform_(-bound, bound, generator=draw)
    return layer


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not (isinstance(size, int) and size > 0):
            raise ToyError(f"{name}={size!r}; expected a whole number above 0.")
