# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Start here: where does a transformer keep a fact?
#
# **Question.** Asked for a capital, which activations of the model carry the answer, and which heads look back at
# what was said before?
#
# **Method.** *Activation patching* (Vig et al. 2020; Meng et al. 2022; Zhang & Nanda 2024): run the model on a
# corrupted prompt ("The capital of Japan is") and put one activation of the clean run ("The capital of France is") in
# its place. With $m$ the logit difference between the two capitals, the share recovered is
#
# $$\frac{m_{\text{patched}} - m_{\text{corrupted}}}{m_{\text{clean}} - m_{\text{corrupted}}}$$
#
# 0 means that the patch did nothing, 1 that it restored the clean answer. *Head scores* (Olsson et al. 2022): mean
# attention on random tokens written twice.
#
# **On your own model** change `MODEL`; it must know capitals.

# %% tags=["parameters"]
MODEL = "demo"  # or "gpt2", a folder, ...
SEEDS = (0, 1, 2)
FAST = False  # the first seed alone and fewer prompts

# %%
import interp

study = interp.study(
    "00_start_here",
    "Where does a transformer keep a fact?",
    paper="Meng et al. 2022, arXiv:2202.05262; Olsson et al. 2022, arXiv:2209.11895",
    model=MODEL,
    seeds=SEEDS,
    fast=FAST,
)
model = interp.load(MODEL)
control = model.random_twin(SEEDS[0])  # the same shape, untrained
N = 16 if FAST else 64  # prompts
model

# %% [markdown]
# ## Does it know the facts?
#
# There is nothing to locate in a model that does not know; so first the accuracy, with its control.

# %%
pairs = interp.prompts.capitals(model, n=N, seed=SEEDS[0])
print(pairs.show(2))


def accuracy(who, prompts):
    return float(interp.metrics.evaluate("accuracy", who.run(prompts).logits, prompts).mean())


print("model  ", accuracy(model, pairs))
print("control", accuracy(control, pairs))

# %% [markdown]
# ## Where is the capital?
#
# The residual stream before each block, patched at the subject and at the last position.

# %%
where = interp.patch(model, pairs, "L*.resid_pre", positions=["subject", "END"], progress=False)
print(where)
study.figure(where.plot(title="residual stream: share of the capital restored"), "residual-stream")

# %% [markdown]
# ## Which heads carry it over?
#
# Each head's output (before $W_O$) at the last position.

# %%
heads = interp.patch(model, pairs, "L*.H*.z@END", progress=False)
study.figure(heads.plot(title="heads at the last position: share of the capital restored"), "heads")

# %%
heads.top(5)

# %% [markdown]
# ## The same question by causal tracing
#
# Meng et al. 2022: noise on the subject's embedding takes the answer away; one clean state, or the MLP or attention
# outputs of a window of layers, is put back at one token. Colour is what comes back of P(answer).

# %%
trace = interp.trace(model, pairs, seed=SEEDS[0], progress=False)
print(trace)
study.figure(trace.plot(), "trace")

# %% [markdown]
# ## Who writes the answer?
#
# Direct logit attribution: the logit difference as a sum of what each head and MLP wrote. A part survives if shuffled
# answers do not explain it.

# %%
written = interp.logit_attribution(model, pairs, by="head", seed=SEEDS[0])
print(written)
study.figure(written.plot(), "logit-attribution")

# %% [markdown]
# ## What would each layer say?
#
# The logit lens reads the residual stream through the final norm and the unembedding.

# %%
lens = interp.lens(model, pairs)
print(dict(zip(lens.layers, lens.accuracy().tolist(), strict=True)))
study.figure(lens.plot(0), "logit-lens")

# %% [markdown]
# ## Where do the heads that write it look?
#
# Point at a token to see where it looks, or who looks at it.

# %%
movers = [
    part.removesuffix(".result") for part in written.top(6)["part"] if part.endswith(".result")
]
interp.attention(model, pairs.texts[0], movers).view()

# %% [markdown]
# ## Which heads do induction?
#
# Attention from a token to what followed it the last time. An induction head must also raise the logit of the token
# it attends to.

# %%
scores = interp.head_scores(model, seed=SEEDS[0])
null = interp.head_scores(control, seed=SEEDS[0])
print("found  ", {kind: scores.found(kind) for kind in ("previous_token", "induction")})
print("control", {kind: null.found(kind) for kind in ("previous_token", "induction")})
study.figure(scores.plot("induction"), "induction")

# %% [markdown]
# ## Claims, and their nulls
#
# The same measures for each seed (other prompts, other noise), and on an untrained twin.


# %%
def measured(who, seed):
    prompts = interp.prompts.capitals(model, n=N, seed=seed)
    traced = interp.trace(
        who, prompts, kinds=("states",), samples=3, only_known=False, seed=seed, progress=False
    )
    restored = traced.by_role().indirect_effect()[0]  # layer, role
    return {
        "accuracy": accuracy(who, prompts),
        "early": float(restored[0, 2]),  # before the first block, last subject token
        "late": float(restored[-2, 5]),  # before the last block, last token
        "induction": len(interp.head_scores(who, seed=seed).found("induction")),
    }


ours = {seed: measured(model, seed) for seed in study.seeds}
nulls = {seed: measured(model.random_twin(seed), seed) for seed in study.seeds}
for key, name, above in (
    ("accuracy", "capitals known (share of prompts)", 0.9),
    ("early", "P(answer) restored at the last subject token before block 0", 0.5),
    ("late", "P(answer) restored at the last token before the last block", 0.5),
    ("induction", "induction heads (count)", 0.5),
):
    study.claim(
        name,
        [row[key] for row in ours.values()],
        above=above,
        null=[row[key] for row in nulls.values()],
        null_bound=min(above, 0.1),
        control="untrained twin",
        basis="set before the measurement",
    )

# %% [markdown]
# **Honest limits.** The demo model is a model of a rule-written corpus. Its facts sit in its first MLP; in GPT-2 XL,
# Meng et al. (2022) find them in middle layers. On your own model, change the first line and compare.

# %%
study
