"""What is measured on the prompt, and on every random context in the same way.

    direct       what each component, and each head, adds to the answer's logit at the end
    lens         the log-probability of the answer read from each layer at the end
    attention    where each head looks from the end
    position     the change of log P(own top token) when one token's embedding is noised
    ablation     the same when one head or MLP is put, at the end, to its mean over all rows

Where the answer is the model's own top token, each context is asked about its own top token too: a
token that the model chose is compared with tokens that it chose, else every model's parts would seem
to agree on it beyond chance. A given answer (and foil) is asked for in every context. The last two
always ask about each row's own top token: what a change does in any prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.direct.verb import logit_attribution
from interp.models.model import Model
from interp.patching.verb import patch
from interp.prompts.prompts import Prompts
from interp.runs.edits import Noise
from interp.runs.execute import execute
from interp.steering.ablation import ablate
from interp.taps.unembed import unembed

__all__ = ["NOISE", "Scores", "Setting", "measurements"]

#: Noise on a token, in standard deviations of the prompt's embeddings (Meng et al. 2022).
NOISE: Final = 3.0
_NOISES: Final = 2  # draws of it, averaged
_ROOM: Final = 2**28  # bytes of patterns held at once


@dataclass(frozen=True, eq=False)
class Scores:
    """One kind of measurement: a number for each cell in the prompt (row 0) and each context."""

    unit: str
    cells: tuple[str, ...]
    values: Float[Tensor, "cell row"]


@dataclass(frozen=True, eq=False)
class Setting:
    """A model on a prompt and its contexts.

    Attributes:
        asked: every row asked for the given answer (and foil), or for its own top token.
        own: every row asked for its own top token.
        words: the prompt's tokens as text, numbered.
    """

    model: Model
    asked: Prompts
    own: Prompts
    words: tuple[str, ...]

    @classmethod
    def of(
        cls, model: Model, rows: Int[Tensor, "row pos"], answer: int | None, foil: int | None,
        words: Sequence[str],
    ) -> Setting:  # fmt: skip
        last = model.run(rows, logits="last").logits[:, 0]
        own = model.prompts(rows, answers=last.argmax(-1, keepdim=True).cpu(), name="scan")
        if answer is None:
            return cls(model, own, own, tuple(words))
        answers, foils = (
            None if token is None else torch.full((len(rows), 1), token) for token in (answer, foil)
        )
        return cls(model, replace(own, answers=answers, foils=foils), own, tuple(words))


def measurements(setting: Setting, seed: int) -> dict[str, Callable[[], Scores]]:
    """Each kind of measurement by name, to be run one after the other."""
    return {
        "direct": lambda: _direct(setting, "component"),
        "direct, heads": lambda: _direct(setting, "head"),
        "lens": lambda: _lens(setting),
        "attention": lambda: _attention(setting),
        "position": lambda: _positions(setting, seed),
        "ablation": lambda: _ablation(setting),
    }


def _direct(setting: Setting, by: str) -> Scores:
    found = logit_attribution(setting.model, setting.asked, by=by, draws=0, progress=False)  # type: ignore[arg-type]
    keep = [
        i for i, name in enumerate(found.names)
        if by == "component" or name.endswith(".result")
    ]  # fmt: skip
    names = tuple(found.names[i].removesuffix(".result") for i in keep)
    return Scores("logits", names, found.per_prompt[keep].cpu().float())


@torch.no_grad()
def _lens(setting: Setting) -> Scores:
    """The last position of each layer through the final norm and the unembedding."""
    model, tokens = setting.model, setting.asked.clean.to(setting.model.device)
    sites = [f"L{layer}.resid_pre" for layer in range(model.n_layers)]
    sites.append(f"L{model.n_layers - 1}.resid_post")
    run = execute(model.anatomy, tokens, save=sites, logits="none")
    assert setting.asked.answers is not None  # every row has one
    answers = setting.asked.answers.to(model.device)
    logs = [
        unembed(model.anatomy, run.cache[site][:, -1]).float().log_softmax(-1).gather(1, answers)
        for site in sites
    ]
    names = [*(f"before L{layer}" for layer in range(model.n_layers)), "out"]
    return Scores("nats", tuple(names), torch.cat(logs, 1).T.cpu())


@torch.no_grad()
def _attention(setting: Setting) -> Scores:
    model, tokens = setting.model, setting.asked.clean.to(setting.model.device)
    layers, held = (
        range(model.n_layers),
        4 * model.n_heads * tokens.ids.numel() * len(setting.words),
    )
    step = max(1, _ROOM // held)  # a run for as many layers as may be held
    values = []
    for low in range(0, len(layers), step):
        sites = [f"L{layer}.pattern" for layer in layers[low : low + step]]
        run = execute(model.anatomy, tokens, save=sites, logits="none")
        ends = [run.cache[site][:, :, -1].float().cpu() for site in sites]
        values += [end.permute(1, 2, 0).flatten(0, 1) for end in ends]
    heads = [f"L{layer}.H{head}" for layer in layers for head in range(model.n_heads)]
    cells = tuple(f"{head} → {word}" for head in heads for word in setting.words)
    return Scores("attention", cells, torch.cat(values))


def _positions(setting: Setting, seed: int) -> Scores:
    run = execute(
        setting.model.anatomy, setting.asked.clean.rows(slice(0, 1)).to(setting.model.device),
        save="embed", logits="none",
    )  # fmt: skip
    std = NOISE * float(run.cache["embed"].float().std())
    sweeps = [
        patch(
            setting.model, setting.own, "embed", metric="log_prob", direction="noise",
            source=Noise(std, seed=seed + i), positions="each", progress=False,
        )
        for i in range(_NOISES)
    ]  # fmt: skip
    effects = torch.stack([sweep.per_prompt - sweep.clean for sweep in sweeps]).mean(0)
    return Scores("nats", setting.words, effects.float())


def _ablation(setting: Setting) -> Scores:
    reference = setting.own
    cells, values = [], []
    for site in ("L*.H*.z", "L*.mlp_out"):
        sweep = ablate(
            setting.model, setting.own, site, method="mean", reference=reference,
            metric="log_prob", positions="END", progress=False,
        )  # fmt: skip
        effects = (sweep.per_prompt - sweep.clean).float()
        values.append(effects.flatten(0, -2))
        labels = sweep.to_frame()
        cells += [
            f"L{row.layer}.H{row.head}" if site.endswith("z") else f"L{row.layer}.mlp_out"
            for row in labels.itertuples()
        ]
    return Scores("nats", tuple(cells), torch.cat(values))
