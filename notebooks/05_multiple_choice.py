# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How does a model that knows the answer pick the letter?
# **Paper.** Lieberum, Rahtz, Kramár, Nanda, Irving, Shah & Mikulik, *Does Circuit Analysis Interpretability Scale? Evidence from
# Multiple Choice Capabilities in Chinchilla*, 2023, [arXiv:2307.09458](https://arxiv.org/abs/2307.09458).
#
# **Question.** "A: Rome B: Paris C: Lima D: Cairo Answer:" Which heads write the letter, what do they look at, how few
# directions do they need for it, and is the feature they use "the Nth item of an enumeration"?
#
# **On your own model** change `MODEL`. It must be able to answer with a letter (small models without instructions often cannot; look at the
# first table), and needs each label as one token: lower or change `LABELS` otherwise. Heads are picked by what they do.

# %% tags=["parameters"]
MODEL = "demo"
SEEDS = (0, 1, 2)
FAST = False  # the first seed alone and fewer prompts: seconds instead of minutes
LABELS = {  # other labels, as many as options; each question puts them in an order of its own
    "letters out of order": ("A", "B", "C", "D"),
    "names": ("Mary", "John", "Tom", "Anna"),
    "numbers": ("10", "20", "30", "40"),
}

# %%
import pandas as pd
import torch

import interp
from interp.pipelines import attending, effects, label_places
from interp.pipelines.head_subspaces import head_subspaces, low_rank
from interp.pipelines.labels import against_all, labels_of
from interp.pipelines.letter_heads import carried, letter_heads, ranked_heads, right_over_others
from interp.steering.ablation import ablate

study = interp.study(
    "05_multiple_choice",
    "How does a model that knows the answer pick the letter?",
    paper="Lieberum et al. 2023, arXiv:2307.09458",
    model=MODEL,
    seeds=SEEDS,
    fast=FAST,
)
N, TESTED, DRAWS, RANKS = (32, 40, 1, (3,)) if FAST else (100, 60, 2, (1, 3, 8))
first = study.seeds[0]

model = interp.load(MODEL)
twins = {seed: model.random_twin(seed, check=False) for seed in study.seeds}
# heads and directions are chosen on some questions, and tested on others
fits = {seed: interp.prompts.mcq(model, n=N, seed=1000 + seed) for seed in study.seeds}
asked = {seed: interp.prompts.mcq(model, n=TESTED, seed=seed) for seed in study.seeds}
print(asked[first].show(2))

# %% [markdown]
# Each prompt is measured by its **letter logit difference**, centred over the letters:
# $$d = \mathrm{logit}_\text{right} - \tfrac13 \sum_{\text{others}} \mathrm{logit}.$$
# What raises all letters alike chooses none of them, and drops out. $d = 0$: no preference; $d > 0$: for the right one.
#
# ## 1. Can it do the task, and from which layer on can the letter be read?
# The logit lens reads the stream before each block as if the model stopped there.

# %%
lenses = {seed: interp.lens(model, asked[seed]) for seed in study.seeds}
twin_lenses = {seed: interp.lens(twins[seed], asked[seed]) for seed in study.seeds}
pd.DataFrame({
    MODEL: torch.stack([found.accuracy() for found in lenses.values()]).mean(0),
    "untrained twin": torch.stack([found.accuracy() for found in twin_lenses.values()]).mean(0),
}, index=lenses[first].layers).rename_axis("read at").T.round(2)  # fmt: skip

# %%
letters = {seed: label_places.letters_of(fits[seed]) for seed in study.seeds}


def share_chosen(who, prompts):
    """The share of prompts whose answer stands above the other letters. A quarter is chance."""
    return float(label_places.chosen(who, prompts).float().mean())


usual = {seed: label_places.by_place(asked[seed], letters[seed]) for seed in study.seeds}
study.claim(
    "accuracy among the four letters",
    {seed: share_chosen(model, usual[seed]) for seed in study.seeds},
    above=0.9,
    null={seed: share_chosen(twins[seed], usual[seed]) for seed in study.seeds},
    null_bound=0.5,
    control="untrained twin",
    basis=(10, 11, 12),
)

# %% [markdown]
# ## 2. Which heads: direct and total effect
# The **direct effect** of a head is what its output at the last token adds to $d$ on the straight way to the logits (direct logit attribution: the final
# norm held, $W_U$ applied). The **total effect** is what $d$ loses when that output is exchanged for that of another prompt (resample
# ablation), with all that later parts make of it. Both are in logits. Equal: the head writes the letter itself. Total without direct: it
# tells somebody else.

# %%
heads = {seed: letter_heads(model, fits[seed], twin=twins[seed], seed=seed) for seed in study.seeds}
table = heads[first].measured().set_index("node")
kinds = {node: ", ".join(names) for node, names in heads[first].by_node().items()}
table.nlargest(8, "total effect").round(2).assign(kind=pd.Series(kinds)).fillna("")

# %% [markdown]
# The kinds are the paper's, by thresholds on attention and effect, each beside the untrained twin (`interp.pipelines.letter_heads`). On
# the demo model no head is a *correct letter* head, the paper's main kind, which looks at the right label. The letter is written by heads of two other
# kinds: *single letter* heads look at (or just behind) one and the same label, whichever is right; a *correct option* head looks
# behind the right option.

# %%
layer_of = [f"head of block {name[1:].split('.h')[0]}" for name in table.index]
strongest = table["total effect"].nlargest(6).index
figure = interp.figures.points(
    table["direct effect"].tolist(),
    table["total effect"].tolist(),
    labels=layer_of,
    named=[(table.index.get_loc(name), name) for name in strongest],
    title="Direct and total effect of each head at the last token",
    x_name="direct effect (logits)",
    y_name="total effect (logits)",
)
study.figure(figure, "direct-total")

# %% [markdown]
# In the last block both agree: nothing but one MLP follows. Heads before it tell later parts more than they write. Farthest to the left, with a total
# effect and hardly a direct one, is the **content gatherer**: it looks at what the question is about. How much of its effect goes
# through later parts?


# %%
def indirect(roles):
    """Total less direct effect of every head."""
    rows = roles.measured().set_index("node")
    return rows["total effect"] - rows["direct effect"]


def gatherer(roles):
    """The head that looks most at the question's subject among the five of largest total effect."""
    rows = roles.measured().set_index("node").nlargest(5, "total effect")
    return rows["attention END→subject"].idxmax()


gathering = {seed: gatherer(roles) for seed, roles in heads.items()}
last = [f"a{model.n_layers - 1}.h{head}" for head in range(model.n_heads)]
study.claim(
    "effect of the content gatherer that goes through later parts (logits)",
    {seed: float(indirect(roles)[gathering[seed]]) for seed, roles in heads.items()},
    above=0.8,
    null={seed: float(indirect(roles)[last].abs().max()) for seed, roles in heads.items()},
    null_bound=0.25,
    control="largest of a head of the last block",
    basis=(10, 11, 12),
)

# %% [markdown]
# MLPs write letters too (the paper counts them among its output nodes). Direct effects of all parts, in logits:

# %%
by_head, by_mlp = effects.direct(model, against_all(asked[first]))
direct = {node: by_mlp.of(node) for node in by_mlp.nodes}
direct |= {
    f"heads of block {n}": sum(by_head.of(h) for h in by_head.nodes if h.startswith(f"a{n}."))
    for n in range(model.n_layers)
}
pd.Series(direct, name="direct effect (logits)").round(2).to_frame().T

# %% [markdown]
# ## 3. With and without content
# Accuracy when the content gatherer's output is that of another prompt: at the last token alone, and at all tokens. Then the share of $d$ that is left,
# 1 if nothing is lost; the null is the same for the worst of the other heads of its block.


# %%
def without(seed, node, at="", metric="accuracy"):
    """Accuracy, or the share of d, with one head's output exchanged."""
    site = node.replace("a", "L").replace(".h", ".H") + ".z" + at
    lost = ablate(
        model,
        against_all(asked[seed]),
        site,
        method="resample",
        metric=metric,
        seed=seed,
        progress=False,
    )
    left = float(lost.per_prompt.float().mean())
    return left if metric == "accuracy" else left / float(lost.clean.mean())


def others(seed):
    block = gathering[seed].split(".")[0]
    return [
        f"{block}.h{head}" for head in range(model.n_heads) if f"{block}.h{head}" != gathering[seed]
    ]


pd.DataFrame({
    "accuracy": {seed: share_chosen(model, usual[seed]) for seed in study.seeds},
    "without content at the last token": {s: without(s, gathering[s], "@END") for s in study.seeds},
    "without content at all tokens": {s: without(s, gathering[s]) for s in study.seeds},
}).rename_axis("seed").round(2)  # fmt: skip

# %% [markdown]
# At the last token the model misses it little; at all tokens it falls to chance. So this model gathers the content *at the options*: each option
# is compared with the question where it stands, and the last token collects the outcome. In the paper's circuit content
# gatherers and correct-letter heads work at the last token.

# %%
study.claim(
    "share of d that is left without the content gatherer at any token",
    {seed: without(seed, gathering[seed], metric="logit_diff") for seed in study.seeds},
    below=0.2,
    null={
        seed: min(without(seed, node, metric="logit_diff") for node in others(seed))
        for seed in study.seeds
    },
    control="without another head of its block (the worst)",
    basis=(10, 11, 12),
)

# %% [markdown]
# ## 4. Where do the letter heads look?
# Attention from the last token to each label, the token behind it, and the end of each option, by which answer is right.

# %%
order = {seed: ranked_heads(roles) for seed, roles in heads.items()}
writers = {  # the strongest heads that write the letter themselves
    seed: [head for head in ranked_heads(roles, "direct effect") if head in order[seed][:8]][:4]
    for seed, roles in heads.items()
}
options = labels_of(asked[first])
where = {
    name: place
    for x in options
    for name, place in [(x, x), (f"{x}+1", f"{x}+1"), (f"option {x}", f"option_{x}")]
}
looks = attending.attention(model, fits[first], "END", where)
right = label_places.place_of(fits[first])
shown = torch.stack([
    torch.stack([
        torch.stack([looks[name].per_prompt[layer * model.n_heads + head][right == place].mean() for name in where])
        for place in range(len(options))
    ])
    for layer, head in writers[first]
])  # fmt: skip
figure = interp.figures.grid(
    shown,
    {"head": [f"a{layer}.h{head}" for layer, head in writers[first]], "right answer": list(options), "looked at": list(where)},
    title="Where heads that write the letter look from the last token",
    unit="share of attention",
    signed=False,
)  # fmt: skip
study.figure(figure, "attention")

# %% [markdown]
# A column that is bright in all rows: a single-letter head. A head whose bright cell moves with the right answer looks for it; here, at the token behind
# the *next* label, the first that has read both the option and where it ends. We measure it as attention to the right option (and the two tokens
# behind) less the mean of the other options: 0 looks at all alike, 1 at the right one alone.


# %%
def finder(who, seed):
    """The head that looks most at the right option, chosen on the other questions."""
    found = right_over_others(who, fits[seed])
    return divmod(int(found.argmax()), found.shape[1])


finders = {seed: finder(model, seed) for seed in study.seeds}
study.claim(
    "attention to the right option above the others",
    {seed: float(right_over_others(model, asked[seed])[finders[seed]]) for seed in study.seeds},
    above=0.3,
    null=[
        float(right_over_others(who, prompts)[head])
        for seed in study.seeds
        for who, prompts, head in [
            (twins[seed], asked[seed], finder(twins[seed], seed)),
            (model, label_places.dealt(asked[seed], seed=seed), finders[seed]),
        ]
    ],
    null_bound=0.2,
    control="untrained twin's best head, and right answers dealt out to other questions",
    basis=(10, 11, 12),
)  # fmt: skip

# %% [markdown]
# ## 5. Few heads carry it
# Keep the $k$ heads of largest total effect and exchange the outputs of all others at the last token. The share of $d$ that is kept
# is 0 with no head kept, and 1 in the whole model. Null: $k$ heads in random order.

# %%
quarter = model.n_layers * model.n_heads // 4
most = quarter if FAST else 2 * quarter


def shuffled(heads, seed):
    generator = torch.Generator().manual_seed(seed)
    return [heads[i] for i in torch.randperm(len(heads), generator=generator).tolist()]


kept = {
    seed: carried(model, asked[seed], order[seed], most=most, seed=seed) for seed in study.seeds
}
kept_random = {
    seed: [
        carried(model, asked[seed], shuffled(order[seed], 100 * seed + i), most=most, seed=seed)
        for i in range(DRAWS)
    ]
    for seed in study.seeds
}
figure = interp.figures.curves(
    list(range(most + 1)),
    {
        "by total effect": [found.tolist() for found in kept.values()],
        "random order": [one.tolist() for found in kept_random.values() for one in found],
    },
    title="How few heads carry the letter",
    x_name="heads kept at the last token",
    y_name="share of d kept",
    lines={"threshold": 0.8},
)
study.figure(figure, "heads-kept")

# %%
study.claim(
    "share of the letter logit difference that a quarter of the heads carries",
    {seed: float(found[quarter]) for seed, found in kept.items()},
    above=0.8,
    null=[float(one[quarter]) for found in kept_random.values() for one in found],
    control="as many heads in random order",
    basis="set in a feasibility study on another small model",
)

# %% [markdown]
# ## 6. Few directions carry it
# Of each of these heads take the query $q$ at the last token, and keys $k$ and values $v$ at the labels (and one token behind). Centre them,
# $x - \mu$, and take the singular vectors. Then put in the place of $x$ its projection $P_r$ on the first $r$ of them,
# $$\mu + P_r(x - \mu),$$
# at those tokens only, as the head alone reads it, and see what share of the effect survives: 0 with the mean alone, 1 with all dimensions.
# Two ways to centre:
#
# - *each label has its own mean*: the mean tells labels apart already, directions carry what differs between questions;
# - *one mean for all labels*: the directions have to tell labels apart too. The stricter question.
#
# Null: random directions, as many. `complement` is everything *but* the first $r$: near 0 if nothing else matters.

# %%
RANK = 3
carriers = {seed: order[seed][:quarter] for seed in study.seeds}
CENTRES = {"a mean for each label": "label", "one mean for all labels": "all"}
subspaces = {
    (seed, name): head_subspaces(model, fits[seed], carriers[seed], centre=centre)
    for seed in study.seeds
    for name, centre in CENTRES.items()
}
compressed = {
    (seed, name): low_rank(
        model, asked[seed], found, ranks=RANKS, parts=("qk", "qkv"), draws=DRAWS, seed=seed
    )
    for (seed, name), found in subspaces.items()
}
frames = pd.concat(
    {key: found.to_frame() for key, found in compressed.items()}, names=["seed", "centred by"]
)
columns = ["share", "complement", "random", "random_high"]
frames[frames["rank"] > 0].groupby(["centred by", "part", "rank"])[columns].mean().round(2)

# %%
each, one = CENTRES
curves = {f"{part}, {name}": (part, name) for name in CENTRES for part in ("qkv", "qk")}
figure = interp.figures.curves(
    [0, *RANKS],
    {
        label: [[compressed[seed, name].share(part, rank) for rank in (0, *RANKS)] for seed in study.seeds]
        for label, (part, name) in curves.items()
    }
    | {
        "qkv, random directions": [
            [0.0, *(sum(draws) / len(draws) for draws in (compressed[seed, each].random_shares("qkv", rank) for rank in RANKS))]
            for seed in study.seeds
        ]
    },
    title="How many directions of each head carry the letter",
    x_name="directions kept",
    y_name="share of the effect kept",
    lines={"threshold": 0.9},
)  # fmt: skip
study.figure(figure, "low-rank")

# %%
for name, part, what in (
    (each, "qkv", "queries, keys and values"),
    (one, "qk", "queries and keys"),
):
    study.claim(
        f"share of the effect kept by {RANK} directions of {what}, {name}",
        {seed: compressed[seed, name].share(part, RANK) for seed in study.seeds},
        above=0.9,
        null=[share for seed in study.seeds for share in compressed[seed, name].random_shares(part, RANK)],
        null_bound=0.5,
        control="random directions",
        basis="set in a feasibility study on another small model",
        paper="queries, keys and values compress significantly without loss of performance" if name == each else None,
        source="Lieberum et al. 2023, abstract" if name == each else None,
    )  # fmt: skip
study.claims[-2:]

# %% [markdown]
# **One threshold does not hold on the demo model**, and is not claimed: with one mean for all labels, three directions of queries, keys *and values*
# keep less than that (rows `qkv` of the table). Values of different labels write different letters, so telling labels apart
# takes directions of its own.
#
# Which of the three tells questions apart? $d$ with one of them at its mean, in logits:

# %%
alone = low_rank(
    model, asked[first], subspaces[first, each], ranks=(RANK,), parts=("q", "k", "v"), draws=0
)
at_mean = dict(
    zip(["queries", "keys", "values"], alone.per_prompt[:, 0].mean(-1).tolist(), strict=True)
)
pd.Series(at_mean | {"none": float(alone.clean.mean())}, name="d (logits)").round(2).to_frame().T

# %% [markdown]
# The query says next to nothing about the question here, unlike in the paper: keys and values do, at the labels. What do
# their directions say? Keys of the head that looks for the right option, at the token behind each label but the first, along the two strongest:

# %%
found = head_subspaces(model, fits[first], [finders[first]], centre="all")
keys = label_places.coordinates(model, asked[first], found, finders[first], "k")[:, 3::2]
places = label_places.place_of(asked[first])
to_right = [place - label for place in places.tolist() for label in range(len(options) - 1)]
stands = [
    f"right option {('further back', 'just before', 'to come')[1 + (d > 0) - (d < 0)]}"
    for d in to_right
]
figure = interp.figures.points(
    keys[..., 0].flatten().tolist(),
    keys[..., 1].flatten().tolist(),
    labels=stands,
    title=f"Keys of a{finders[first][0]}.h{finders[first][1]} behind each label but the first",
    x_name="first direction",
    y_name="second direction",
)
study.figure(figure, "keys")

# %% [markdown]
# Keys behind the right option stand apart, at whichever label: what this head looks for is "the option before me fits", rather than a number.
#
# ## 7. Is it the Nth item? Other labels
# If heads use "Nth item of an enumeration", it should not matter what the labels are. So change them: the letters out of order, names, numbers. Each
# question then has two answers: by **label**, the word printed at the right option, and by **place**, the letter that usually stands there. A
# quarter is chance for both. (Letters out of order agree with their place on a quarter of the questions.)

# %%
out_of_order, words = list(LABELS)[:2]
tried = {"letters in order": None} | {
    name: LABELS[name] for name in LABELS if not FAST or name in (out_of_order, words)
}
changed = {
    (seed, name): interp.prompts.mcq(model, n=TESTED, seed=seed, labels=labels)
    if labels
    else asked[seed]
    for seed in study.seeds
    for name, labels in tried.items()
}
placed = {key: label_places.by_place(prompts, letters[key[0]]) for key, prompts in changed.items()}
moved = {  # null: the right places of other questions
    key: label_places.by_place(label_places.dealt(prompts, seed=key[0]), letters[key[0]])
    for key, prompts in changed.items()
}
answered = pd.DataFrame({
    key: {
        "by label": share_chosen(model, against_all(changed[key])),
        "by place": share_chosen(model, placed[key]),
        "by place, dealt anew": share_chosen(model, moved[key]),
        "attention to the right option": float(right_over_others(model, changed[key])[finders[key[0]]]),
    }
    for key in changed
}).T.rename_axis(["seed", "labels"])  # fmt: skip
means = answered.groupby("labels").mean().reindex(list(tried))
means.round(2)

# %%
figure = interp.figures.bars(
    means.index.tolist(),
    {name: means[name].tolist() for name in ("by label", "by place", "by place, dealt anew")},
    title="Answered by the printed label, or by place?",
    unit="share of questions",
    lines={"chance": 1 / len(options)},
)
study.figure(figure, "other-labels")

# %%
study.claim(
    "share answered by printed label, when letters stand out of order or labels are other words",
    {
        seed: float(answered.loc[seed].drop("letters in order")["by label"].max())
        for seed in study.seeds
    },
    below=0.6,
    null={
        seed: float(answered.loc[(seed, "letters in order"), "by label"]) for seed in study.seeds
    },
    null_bound=0.9,
    control="letters in order",
    basis=(10, 11, 12),
)

# %%
study.claim(
    f"share answered by place, labels: {words}",
    {seed: float(answered.loc[(seed, words), "by place"]) for seed in study.seeds},
    above=0.4,
    null={seed: float(answered.loc[(seed, words), "by place, dealt anew"]) for seed in study.seeds},
    control="right places dealt out to other questions",
    basis=(10, 11, 12),
)

# %% [markdown]
# So there is an "Nth item" in it: with names as labels the printed one is at chance, and the letter of the *place* is well above. Letters out of
# order are read too, a little; with numbers hardly anything is left. If the item's number were all, labels would change nothing.
#
# Do the directions of section 6, fitted on letters in order, carry the place? Now $d$ is asked by place. In logits: the model as it
# is, its share of $d$ with letters in order, and the strongest heads at their mean, with three directions, and
# with random ones.

# %%
again = {
    (seed, name): low_rank(
        model,
        placed[seed, name],
        subspaces[seed, each],
        ranks=(RANK,),
        parts=("qkv",),
        draws=DRAWS,
        seed=seed,
    )
    for seed, name in placed
    if name in LABELS
}
rows = pd.DataFrame({
    key: {
        "d by place": float(result.clean.mean()),
        "of d with letters in order": float(result.clean.mean() / compressed[key[0], each].clean.mean()),
        "heads at their mean": float(result.per_prompt[0, 0].mean()),
        "three directions": float(result.per_prompt[0, 1].mean()),
        "random directions": float(result.random.mean()),
    }
    for key, result in again.items()
}).T.rename_axis(["seed", "labels"])  # fmt: skip
rows.groupby("labels").mean().reindex([name for name in tried if name in LABELS]).round(2)

# %%
study.claim(
    f"share of the effect by place kept by {RANK} directions fitted on letters in order: {out_of_order}",
    {seed: again[seed, out_of_order].share("qkv", RANK) for seed in study.seeds},
    above=0.9,
    null=[
        share
        for seed in study.seeds
        for share in again[seed, out_of_order].random_shares("qkv", RANK)
    ],
    null_bound=0.5,
    control="random directions",
    basis=(10, 11, 12),
    paper="query and key subspaces represent an 'Nth item in an enumeration' feature to at least some extent",
    source="Lieberum et al. 2023, abstract",
)


# %%
other_draw = {seed: label_places.by_place(fits[seed], letters[seed]) for seed in study.seeds}


def left(seed, prompts):
    """The mean letter logit difference, as a share of that on the test questions."""
    return float(
        label_places.preference(model, prompts).mean() / compressed[seed, each].clean.mean()
    )


study.claim(
    f"d by place that is left, of d with letters in order, labels: {words}",
    {seed: float(rows.loc[(seed, words), "of d with letters in order"]) for seed in study.seeds},
    below=0.5,
    null={seed: left(seed, other_draw[seed]) for seed in study.seeds},
    null_bound=0.8,
    control="other questions with letters in order",
    basis=(10, 11, 12),
    paper="on randomized answer labels it is only a partial explanation",
    source="Lieberum et al. 2023, abstract",
)

# %% [markdown]
# Both sentences of the paper hold here: the few directions do carry the item's number, and the item's number is only a part of what
# the model uses. With three directions $d$ may even *rise* under other labels: the projection takes out what is strange about
# them, and the mean it puts in is that of the usual letters. Where the heads at their mean do as well as the heads themselves
# (numbers), there is nothing left to carry.
#
# ## On the real model, the paper reports
# Chinchilla 70B on MMLU: logit attribution, attention patterns and patching "naturally scale", and give "a small set of output nodes (attention heads and
# MLPs)". Of the *correct letter* heads, "we significantly compress the query, key and value subspaces of the head without loss of performance";
# query and key subspaces "represent an 'Nth item in an enumeration' feature to at least some extent"; on "randomized answer labels, we find that it is only a partial
# explanation" (abstract). The model is not public: a run of this notebook on a Llama or Qwen is the nearest there is.
#
# ## Honest limits
# - **Another algorithm.** The demo model matches options with the question where they stand, its heads read the outcome at fixed labels, and its queries
#   hardly matter. In the paper the last token's query says which item is sought. That there is an "Nth item" in both is a likeness of features, not of circuits.
# - **It never saw other labels**: A to D in their order are all that it was trained on, one template, one relation. That it cannot read a printed label is no surprise;
#   Chinchilla can. Its vocabulary has no other letters: random letters, the paper's case, are left to `LABELS` on your model.
# - **One model.** Seeds draw the questions and the untrained twins; the trained model is the same in all.
# - **Heads alone.** MLPs at the last token write about as much of $d$ (section 2), and stay the model's own in sections 5 and 6: shares are of what
#   heads do, not of all of $d$.
# - **Ranks are small from the start**: a head of the demo model has few dimensions (`model.d_head`), so "few directions" says less here than in a large one.
# - **Resampled outputs** come from questions with other right answers, and sometimes from the same one; both kinds are in the mean.

# %%
study
