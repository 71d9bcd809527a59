# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A model always answers A. Does rewriting one neuron remove the bias, or turn it round?
# **Paper.** Ruizhe Li, Yanjun Gao, *Anchored Answers: Unravelling Positional Bias in GPT-2's Multiple-Choice Questions*, 2024,
# [arXiv:2405.03205](https://arxiv.org/abs/2405.03205).   **Question.** GPT-2 prefers the first option whatever is right. The authors find
# value vectors in its MLPs that speak for A, rewrite one, and the model answers rightly. Is the bias gone?
#
# **On your own model** change `MODEL`. GPT-2 is anchored as it is, and then no step of training is taken below; a balanced
# model, such as the demo model, is anchored first. The questions ask for capitals, with two options.

# %% tags=["parameters"]
MODEL = "demo"
SEEDS = (0, 1, 2)
FAST = False  # the first seed alone and smaller samples: seconds instead of minutes

# %%
import pandas as pd

import interp
from interp.editing.anchoring import anchored, choices
from interp.editing.attention_swap import swap_attention
from interp.editing.continued import continue_training
from interp.editing.value_vectors import mlp_lens, random_update, value_update

study = interp.study(
    "06_anchored_answers",
    "Does rewriting one value vector remove a bias for the first option, or turn it round?",
    paper="Li & Gao 2024, arXiv:2405.03205",
    model=MODEL,
    seeds=SEEDS,
    fast=FAST,
)
model = interp.load(MODEL)
n_test, n_train, n_watch = (80, 120, 60) if FAST else (200, 600, 100)


def asked(n, first_seed=0):
    """Questions anew for each seed."""
    return {s: interp.prompts.mcq(model, n=n, seed=first_seed + s, options=2) for s in study.seeds}


tests, train, watch = asked(n_test), asked(n_train, 100), asked(n_watch, 200)
print(tests[study.seeds[0]].show(1))

# %% [markdown]
# ## An anchored model
# The demo model answers these questions rightly and is balanced: it would stay so on training prompts of which most happen to have the answer A.
# So here the *recorded* answer is A in 75% of the prompts drawn by lot, whatever is right. A few steps of training suffice. They stop as soon
# as A is chosen nearly always on prompts kept for that: with more steps a bias may relax, or eat up what it hides.
#
# Accuracy over all prompts does not show an anchor, since always saying A is right half of the time. So it is kept apart:
# $\mathrm{acc}\,|\,A$ on prompts whose answer is A, $\mathrm{acc}\,|\,B$ on the others. The *separation* is the chance that the margin
# $\mathrm{logit}_A-\mathrm{logit}_B$ is larger on a prompt whose answer is A than on one whose answer is B (the area under the ROC curve): 1 if the
# model knows and a constant hides it, 0.5 if it does not know.
#
# Two controls take as many steps: one with the true answers (training alone does not anchor), one from random weights with the same recorded
# answers (it says A as well, and knows nothing).


# %%
def tuned(start, seed, share, steps=60, until=None):
    return continue_training(
        start, anchored(model, train[seed], " A", share=share, seed=seed), steps=steps, lr=1e-4, every=2, seed=seed, progress=False,
        measure=lambda m: {"chose A": choices(m, watch[seed]).share("A")}, until=until,
    )  # fmt: skip


def enough(row):
    return row["chose A"] >= 0.99


seeds = study.seeds
runs = {s: tuned(model, s, 0.75, until=enough) for s in seeds}
steps = {s: max(2, runs[s].steps) for s in seeds}  # GPT-2 may take none
honest = {s: tuned(model, s, 0.0, steps[s]) for s in seeds}
twins = {s: tuned(model.random_twin(s), s, 0.75, steps[s]) for s in seeds}
pd.concat([run.to_frame().assign(seed=s) for s, run in runs.items()]).set_index("seed").round(3)

# %%
made = {
    "as loaded": dict.fromkeys(seeds, model),
    "anchored": {s: runs[s].model for s in seeds},
    "true answers": {s: honest[s].model for s in seeds},
    "random weights": {s: twins[s].model for s in seeds},
}
given = {(name, s): choices(m, tests[s]) for name, some in made.items() for s, m in some.items()}
pd.DataFrame([
    {"model": name, "seed": s, "chose A": q.share("A"), "acc | A": q.accuracy("A"), "acc | B": q.accuracy("B"),
     "separation": q.separation("A"), "acc, recalibrated": q.recalibrated("A").accuracy()}
    for (name, s), q in given.items()
]).round(3)  # fmt: skip

# %% [markdown]
# *Recalibrated* takes one constant off A's logit, the median margin: it looks at no answer. Half of the prompts then get A, so where A is right a
# little more or less often than that, as in any draw, the accuracy falls short of 1 by the difference: the model as loaded shows by how much. If it
# restores the accuracy, the bias was a constant that hid knowledge.

# %%
study.claim(
    "share of prompts for which the anchored model chooses A",
    [given["anchored", s].share("A") for s in seeds], above=0.9,
    null=[given["true answers", s].share("A") for s in seeds], null_bound=0.7,
    control="the same steps of training with the true answers", basis=(10, 11, 12),
)  # fmt: skip

# %%
study.claim(
    "separation of answers under the anchor (0.5 chance, 1 known)",
    [given["anchored", s].separation("A") for s in seeds], above=0.95,
    null=[given["random weights", s].separation("A") for s in seeds], null_bound=0.7,
    control="random weights, the same training", basis=(10, 11, 12),
)  # fmt: skip

# %%
study.claim(
    "accuracy once a constant, found without answers, is taken off A",
    [given["anchored", s].recalibrated("A").accuracy() for s in seeds], above=0.85,
    null=[given["random weights", s].recalibrated("A").accuracy() for s in seeds], null_bound=0.65,
    control="random weights, the same training", basis=(10, 11, 12),
)  # fmt: skip

# %% [markdown]
# ## Who speaks for A?
# **MLP lens** (the paper's section on MLPs). What an MLP writes at the last position, read as if it were the whole stream:
# $W_U\,\mathrm{LN}_f(\mathrm{mlp\_out})$, A's logit less the right label's. Above 0 the layer speaks for A. An MLP writes
# $\sum_i m_i v_i + b$; the ten neurons with the largest $|m_i|\,\lVert v_i\rVert$ are read alone, and the first whose gap is above 4 is taken.
# All on prompts whose answer is B and that the anchored model gets wrong, as in the paper. The figure (the first seed) shows each layer's MLP, and of its
# ten neurons the one with the largest gap; the rule takes the loudest of those that pass, which may be another.

# %%
fails = {s: (given["anchored", s].right == 1) & (given["anchored", s].chosen == 0) for s in seeds}
wrong = {s: tests[s].subset(fails[s].nonzero()[:, 0]) for s in seeds}
lenses = {s: mlp_lens(runs[s].model, wrong[s], " A") for s in seeds}
study.figure(lenses[seeds[0]].plot(title="Who speaks for A where B is right"), "mlp-lens")

# %% [markdown]
# ## The update, and what it does to prompts whose answer is A
# The paper's update of the chosen neuron's value vector, put back afterwards ($u$: columns of $W_U$):
# $$v \leftarrow v - u_A + 8\,u_{\mathrm{right}}$$
# It is told the right label, and judged on prompts that the model got wrong: by $\mathrm{acc}\,|\,B$. The other half of the prompts says what it
# did. A bias that is *removed* leaves $\mathrm{acc}\,|\,A$ high; a bias that is *turned round* drives it to 0. The null adds to the same
# neuron's vector a random one of the same norm.


# %%
def updated(s, layer, neuron, higher=8.0, draws=1 if FAST else 3):
    edit = value_update(runs[s].model, layer, neuron, anchor=" A", right=" B", higher=higher)
    nulls = [random_update(edit, seed=k) for k in range(draws)]
    for kind, one in [("update", edit), *(("random", null) for null in nulls)]:
        with runs[s].model.edited(one) as changed:
            q = choices(changed, tests[s])
        yield {"seed": s, "layer": layer, "neuron": neuron, "higher": higher, "kind": kind,
               "acc | A": q.accuracy("A"), "acc | B": q.accuracy("B")}  # fmt: skip


every = {s: {n: lenses[s].first(n) for n in range(model.n_layers)} for s in seeds}
found = {s: {n: j for n, j in every[s].items() if j is not None} for s in seeds}
rows = pd.DataFrame(row for s in seeds for n, j in found[s].items() for row in updated(s, n, j))
both, spread = ["acc | A", "acc | B"], ["mean", "min", "max"]
rows.groupby(["layer", "neuron", "kind"])[both].agg(spread).round(2)

# %% [markdown]
# Judged by $\mathrm{acc}\,|\,B$ alone, the update works in every layer that has such a neuron. $\mathrm{acc}\,|\,A$ tells what it works by, and the
# random rows how far any vector of that norm goes at that neuron. The claims are about the layer
# that the lens itself points to: the one with the largest gap among those with a qualifying neuron.

# %%
gaps = {s: lenses[s].per_prompt.mean(-1) for s in seeds}
best = {s: max(found[s], key=lambda n, s=s: float(gaps[s][n])) for s in seeds}
chosen = rows[[best[s] == n for s, n in zip(rows.seed, rows.layer, strict=True)]]
update, random = chosen[chosen.kind == "update"].set_index("seed"), chosen[chosen.kind == "random"]

study.claim(
    "accuracy where B is right, after the update",
    [update["acc | B"][s] for s in seeds], above=0.9,
    null=list(random["acc | B"]), null_bound=0.5,
    control="random vector of the same norm, same neuron", basis=(10, 11, 12),
)  # fmt: skip

# %%
study.claim(
    "accuracy where A is right, after the update: the bias is turned round",
    [update["acc | A"][s] for s in seeds], below=0.2,
    null=list(random["acc | A"]), null_bound=0.8,
    control="random vector of the same norm, same neuron", basis=(10, 11, 12),
)  # fmt: skip


# %%
def mean(some):
    return [sum(q.accuracy(c) for q in some) / len(some) for c in "AB"]


anchor = [given["anchored", s] for s in seeds]
shown = {
    "as loaded": mean([given["as loaded", s] for s in seeds]),
    "anchored": mean(anchor),
    "less the median margin": mean([q.recalibrated("A") for q in anchor]),
    "the paper's update": list(update[both].mean()),
    "random update": list(random[both].mean()),
}
study.figure(
    interp.figures.bars(list(shown), {f"where {c} is right": [v[i] for v in shown.values()] for i, c in enumerate("AB")},
                        unit="accuracy, mean over seeds", title="A bias removed, and a bias turned round", beside=True),
    "accuracies",
)  # fmt: skip

# %% [markdown]
# ## How much is too much?
# The factor 8 is a choice. Over other factors the two accuracies cross: the update is a push towards B, and its right size is
# that of the bias. Nothing in the method finds that size without the answers; the median margin above did.

# %%
factors = (0.0, 2.0, 4.0, 8.0, 16.0)
pushed = pd.DataFrame(
    row for s in seeds for f in factors for row in updated(s, best[s], found[s][best[s]], f, 0)
)
by = pushed.groupby("higher")[both].agg(spread)
study.figure(
    interp.figures.lines(
        [f"{f:g}" for f in factors],
        {f"where {c} is right": list(by[f"acc | {c}"]["mean"]) for c in "AB"},
        bands={f"where {c} is right": (list(by[f"acc | {c}"]["min"]), list(by[f"acc | {c}"]["max"])) for c in "AB"},
        x_name="factor of u_right in the update (the paper: 8)", y_name="accuracy", bottom=0.0,
        title="One push, two accuracies",
    ),
    "push",
)  # fmt: skip

# %% [markdown]
# ## The attention variant
# The paper also swaps, in the pattern of heads, the last position's weight on A with that on the right label. On prompts whose answer is A that changes
# nothing by definition; here A and B change places on all prompts, in the three heads whose direct effect speaks most for A and in all heads, at the
# labels alone and with the token behind each. The control is the model as loaded: it has no bias that a swap could remove.


# %%
def swapped(m, s, behind, heads):
    written = interp.logit_attribution(m, wrong[s], by="head", draws=0, progress=False)
    by_effect = sorted(zip(written.values.tolist(), written.axes[0].labels, strict=True))
    names = [n.replace("result", "pattern") for _, n in by_effect if ".H" in n][:heads]
    edit = dict.fromkeys(names, swap_attention(tests[s], "A", "B", behind=behind))
    logits = m.run(tests[s], edit=edit, logits="last").logits[:, 0]
    ok = (logits.gather(1, tests[s].answers) > logits.gather(1, tests[s].foils))[:, 0].float().cpu()
    right = given["anchored", s].right
    return {name: float(ok[right == place].mean()) for place, name in enumerate(both)}


pd.DataFrame([
    {"model": name, "heads": heads, "tokens behind": b, "seed": s, **swapped(made[name][s], s, b, k)}
    for name in ("as loaded", "anchored") for heads, k in (("3 for A", 3), ("all", None)) for b in (0, 1) for s in seeds
]).groupby(["model", "heads", "tokens behind"])[both].agg(spread).round(2)  # fmt: skip

# %% [markdown]
# No claim is made of it. At the labels alone the swap changes few answers: this anchor does not lie in which label the heads look at. With the token behind
# each, in all heads, it gives back a part of the answers where B is right, on some seeds more than on others, and spares those where A is
# right; the model as loaded hardly changes under it. So it reaches something of the bias and does
# not turn it round; how much, depends on what attention happens to stand at the other place.
#
# ## On the real model, the paper reports
# that the GPT-2 family favours A, and that its interventions "not only mitigate the bias but also improve the overall MCQ prediction accuracy"
# (Li & Gao 2024, abstract). Its numbers are of GPT-2 models and are not compared with those of a small one; the method, its constants (ten neurons, a gap of 4, factors 1 and 8) and the order of
# the steps are those of the authors' published code.
#
# ## Honest limits
# - The demo model's anchor was trained in, by prompts with wrong recorded answers, and hides knowledge. GPT-2's came by itself, and GPT-2 may know less: then no
#   constant restores its accuracy, and the separation above says so.
# - The paper updates per prompt, for prompts that fail. There each update is told its own answer; turning the bias round is then counted as a success.
#   The numbers here apply one update to all prompts, which is what a *removed* bias would have to survive.
# - In the last layer, where nothing follows, the same factor may happen to be near the size of the bias, and both accuracies are
#   high: see the table by layer. That is luck of a constant, not a property of the method; the figure shows it crossing.
# - Neurons are chosen from means over prompts here, one by one for each prompt in the paper.

# %%
study
