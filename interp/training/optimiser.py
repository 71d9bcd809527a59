"""Adam for dictionaries: one pass over parameters, gradients and moments (Kingma & Ba 2015).

Two passes over large matrices are saved: clipping is folded into the update as a scale, and both
helpers for decoder rows work on a block of rows while it is in cache.

torch's fused kernel walks storages, not indices. Where a parameter and its gradient have different
strides it pairs wrong numbers and says nothing; so strides are checked, here and at each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import TrainingError

__all__ = ["Adam", "project_out", "unit_rows"]

_FUSED = ("cpu", "cuda")
_BLOCK_BYTES = 2**20  # of rows that are read several times


class Adam:
    """Adam over named parameters, equal to ``torch.optim.Adam`` with ``clip_grad_norm_``.

    >>> weight = torch.ones(3, requires_grad=True)
    >>> adam = Adam({"weight": weight})
    >>> (weight * torch.tensor([1.0, -1.0, 2.0])).sum().backward()
    >>> adam.step(0.1)
    >>> [round(one, 4) for one in weight.tolist()]
    [0.9, 1.1, 0.9]

    Args:
        params: parameters by name. Each gets a gradient buffer in ``.grad`` if it has none; buffers
            are kept and may be written directly.
        betas: decay of the moments.
        eps: added to the root of the second moment.

    Raises:
        TrainingError: a parameter that is not contiguous, or whose gradient is laid out otherwise.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.params = dict(params)
        self.betas, self.eps = betas, eps
        for name, one in self.params.items():
            if not one.is_contiguous():
                raise TrainingError(
                    f"parameter {name} has strides {one.stride()} for shape {list(one.shape)}; the "
                    "fused update needs contiguous ones. Make it with .contiguous()."
                )
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        self._gradients()
        self.m = {name: torch.zeros_like(one.detach()) for name, one in self.params.items()}
        self.v = {name: torch.zeros_like(one.detach()) for name, one in self.params.items()}
        self._steps = {
            name: torch.zeros((), dtype=torch.float32, device=one.device)
            for name, one in self.params.items()
        }
        self._shrink: Tensor | None = None

    def zero_grad(self) -> None:
        """Gradients to 0, in place."""
        torch._foreach_zero_(self._gradients())

    @torch.no_grad()
    def clip(self, max_norm: float | None) -> Float[Tensor, ""]:
        """Let the next step see gradients of total norm ``max_norm`` at most; None for no limit.

        Returns:
            The total norm as it is. Gradients are scaled by the step, not now.
        """
        norms = torch._foreach_norm(self._gradients())
        total = torch.linalg.vector_norm(torch.stack(norms))
        # As clip_grad_norm_: gradients · min(1, max_norm / (total + 1e-6)); here a divisor.
        self._shrink = None if max_norm is None else ((total + 1e-6) / max_norm).clamp(min=1.0)
        return total

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters by the gradients as clipped."""
        gradients, shrink = self._gradients(), self._shrink
        self._shrink = None
        for count in self._steps.values():
            count += 1
        if all(one.device.type in _FUSED for one in self.params.values()):
            self._fused(gradients, lr, shrink)
        else:
            self._plain(gradients, lr, shrink)

    @torch.no_grad()
    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Clear the moments of some rows of a parameter, which were drawn anew.

        Raises:
            TrainingError: it is not one of these parameters.
        """
        for name, one in self.params.items():
            if one is parameter:
                self.m[name][rows] = 0
                self.v[name][rows] = 0
                return
        raise TrainingError(
            f"a parameter of shape {list(parameter.shape)} that this optimiser does not have; it has "
            f"{', '.join(self.params)}."
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Moments as ``m.NAME`` and ``v.NAME``, and ``step``. The tensors in use, not copies."""
        moments = {f"m.{name}": one for name, one in self.m.items()}
        moments |= {f"v.{name}": one for name, one in self.v.items()}
        return {**moments, "step": next(iter(self._steps.values()), torch.zeros(()))}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`, to the same bits.

        Raises:
            TrainingError: names or shapes are others.
        """
        own = self.state_dict()
        given = {name: list(one.shape) for name, one in state.items()}
        expected = {name: list(one.shape) for name, one in own.items()}
        if given != expected:
            odd = sorted(name for name in given.keys() | expected.keys()
                         if given.get(name) != expected.get(name))  # fmt: skip
            first = odd[0]
            raise TrainingError(
                f"an optimiser state whose {', '.join(odd)} differ: {first} is {given.get(first)}, "
                f"expected {expected.get(first)}. It is of another dictionary or configuration."
            )
        for name, one in own.items():
            one.copy_(state[name])
        for count in self._steps.values():
            count.copy_(state["step"])

    def _gradients(self) -> list[Tensor]:
        gradients = []
        for name, one in self.params.items():
            grad = one.grad
            if grad is None or grad.stride() != one.stride() or grad.dtype != one.dtype:
                raise TrainingError(
                    f"the gradient of {name} is "
                    + ("missing" if grad is None else f"{grad.dtype} with strides {grad.stride()}")
                    + f"; the fused update needs {one.dtype} with strides {one.stride()}, as the "
                    "parameter has. Write into the buffer in .grad instead of replacing it."
                )
            gradients.append(grad)
        return gradients

    def _fused(self, gradients: list[Tensor], lr: float, shrink: Tensor | None) -> None:
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        names = list(self.params)
        for i, name in enumerate(names):
            one = self.params[name]
            groups.setdefault((one.device, one.dtype), []).append(i)
        for (device, dtype), index in groups.items():
            own = [names[i] for i in index]
            scale = None if shrink is None else shrink.to(device)
            if scale is not None and dtype == torch.float64:  # the kernel reads scales as float32
                torch._foreach_div_([gradients[i] for i in index], scale)
                scale = None
            torch._fused_adam_(
                [self.params[name].detach() for name in own], [gradients[i] for i in index],
                [self.m[name] for name in own], [self.v[name] for name in own], [],
                [self._steps[name] for name in own],
                lr=lr, beta1=self.betas[0], beta2=self.betas[1], weight_decay=0.0, eps=self.eps,
                amsgrad=False, maximize=False, found_inf=None,
                grad_scale=None if scale is None else scale.float(),
            )  # fmt: skip

    def _plain(self, gradients: list[Tensor], lr: float, shrink: Tensor | None) -> None:
        first, second = self.betas
        for grad, (name, one) in zip(gradients, self.params.items(), strict=True):
            step = float(self._steps[name])
            if shrink is not None:
                grad.div_(shrink)
            m, v = self.m[name], self.v[name]
            m.lerp_(grad, 1 - first)
            v.mul_(second).addcmul_(grad, grad, value=1 - second)
            root = v.sqrt().div_((1 - second**step) ** 0.5).add_(self.eps)
            one.detach().addcdiv_(m, root, value=-lr / (1 - first**step))


@torch.no_grad()
def project_out(grad: Float[Tensor, "d_sae width"], dec: Float[Tensor, "d_sae width"]) -> None:
    """Take from each row of ``grad`` its part along that row of ``dec``, in place.

    What would only change a row's norm, which is kept at 1, is not left to Adam's moments (Bricken et
    al. 2023).
    """
    for start, end in _blocks(dec):
        one, row = grad[start:end], dec[start:end]
        along = torch.linalg.vecdot(one, row)
        along /= torch.linalg.vecdot(row, row).clamp_(min=torch.finfo(row.dtype).tiny)
        one.addcmul_(row, along[:, None], value=-1)


@torch.no_grad()
def unit_rows(dec: Float[Tensor, "d_sae width"]) -> None:
    """Scale each row to norm 1, in place; rows of zeros stay."""
    for start, end in _blocks(dec):
        row = dec[start:end]
        row /= torch.linalg.vector_norm(row, dim=1, keepdim=True).clamp_(
            min=torch.finfo(row.dtype).tiny
        )


def _blocks(matrix: Tensor) -> Iterator[tuple[int, int]]:
    n = len(matrix)
    size = max(1, _BLOCK_BYTES // max(1, matrix.shape[1] * matrix.element_size()))
    if matrix.device.type != "cpu":
        size = max(1, n)
    yield from ((start, min(start + size, n)) for start in range(0, n, size))
