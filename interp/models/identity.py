"""What a model computes, as one digest: its weights, and the dictionaries that stand in its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor, nn

from interp.taps.offload import state_of
from interp.taps.splices import Splice

__all__ = ["identity"]


def identity(hf: nn.Module, known: dict[str, Any], splices: Sequence[Splice] = ()) -> str:
    """sha256 over names, shapes and values of the weights, and over the splices if there are any.

    Args:
        known: what this found before, for as long as no weight is written.
    """
    state = tuple((id(p), p._version) for p in hf.parameters())
    if known.get("state") != state:
        with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock
            parts = list(pool.map(_digest, sorted(state_of(hf).items())))
        known.update(state=state, hash=hashlib.sha256(b"".join(parts)).hexdigest())
    own = str(known["hash"])
    if not splices:
        return own
    text = "\n".join([own, *sorted(splice.identity() for splice in splices)])
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(item: tuple[str, Tensor]) -> bytes:
    name, tensor = item
    values = tensor.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(f"{name}{list(tensor.shape)}".encode() + values.tobytes()).digest()
