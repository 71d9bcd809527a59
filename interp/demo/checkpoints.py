"""Checkpoints on disk: finished ones for anybody to load, and the state of a run to resume.

A finished checkpoint is an ordinary Hugging Face folder with its weights rounded to float16. The
state of a run is one safetensors file: weights and optimiser memory in full precision, with the
step, seed, recipe and history as JSON in its header. Every file is written under another name
and then renamed, so that a crash leaves the old file or the new one and never half of one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from interp.errors import CheckpointError

__all__ = [
    "RunState",
    "as_shipped",
    "load_state",
    "save_checkpoint",
    "save_state",
    "sha256",
    "write_text",
]

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class RunState:
    """Where a training run stands.

    Attributes:
        facts: JSON data: the step that comes next, seed, recipe and history.
        weights: the model's parameters by name.
        optimiser: what the optimisers remember.
    """

    facts: dict[str, Any]
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]


def save_state(path: Path, state: RunState) -> None:
    """Write the state of a run, all of it in one file."""
    tensors = {f"weights/{name}": value.contiguous() for name, value in state.weights.items()}
    tensors |= {f"optimiser/{name}": value for name, value in state.optimiser.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={"run": json.dumps(state.facts, sort_keys=True)})
    partial.replace(path)


def load_state(path: Path) -> RunState:
    """Read what :func:`save_state` wrote."""
    if not path.is_file():
        raise CheckpointError(
            f"nothing to resume: there is no {path}. Start anew without resume, or give the "
            "folder of a run that was interrupted."
        )
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimiser": {}}
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("run", "null"))
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                kind, name = key.split("/", 1)
                parts[kind][name] = file.get_tensor(key)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not the state of a training run ({error}); delete it and start anew"
        ) from error
    if facts is None:
        raise CheckpointError(f"{path} has no run in its header; delete it and start anew")
    return RunState(facts, **parts)


def save_checkpoint(
    folder: Path, model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> str:
    """Write a Hugging Face folder with float16 weights; the sha256 of its weights.

    The configuration asks for float32, in which every number of the datasheet is measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
        partial = Path(name)
        model.config.dtype = torch.float32
        with _no_progress_bars():
            model.save_pretrained(partial, state_dict=halves)
        tokenizer.save_pretrained(partial)
        (partial / WEIGHTS).chmod(0o644)  # safetensors lets only the owner read
        for file in sorted(partial.iterdir()):
            file.replace(folder / file.name)
    return sha256(folder / WEIGHTS)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep Hugging Face from drawing a bar for a file that takes no time."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@torch.no_grad()
def as_shipped(model: GPTNeoXForCausalLM) -> GPTNeoXForCausalLM:
    """The model as its checkpoint gives it back: rounded to float16, held in float32."""
    copy = type(model)(model.config)
    copy.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    return copy.eval()


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
