"""A forward pass written out: every head and MLP reads a stream of its own, node by node.

Slow and plain. Uses the model's weights as the package's views show them, and none of its runs
but for what ablated edges carry.
"""

from __future__ import annotations

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from interp.graph.names import Node


def brute_force(setting, masks):
    """Scores of each mask: the logit difference at the last position."""
    model, prompts = setting.model, setting.prompts
    ablated = setting.ablated(slice(None))
    rows = torch.arange(len(prompts))
    scores = []
    for mask in masks & setting.graph.full:
        with torch.no_grad():
            resid = _forward(setting, mask, ablated)
            logits = model.hf.get_output_embeddings()(model.anatomy.ln_final(resid))[:, -1]
            scaling = getattr(model.hf.config, "logits_scaling", 1.0)
            logits = logits / scaling
            cap = getattr(model.hf.config, "final_logit_softcapping", None)
            logits = torch.tanh(logits / cap) * cap if cap else logits
        scores.append(logits[rows, prompts.answers[:, 0]] - logits[rows, prompts.foils[:, 0]])
    return torch.stack(scores)


def _forward(setting, mask, ablated):
    model, graph = setting.model, setting.graph
    tokens = setting.prompts.clean
    written = []  # one tensor for each source, in order
    nobodys = torch.zeros(())  # biases: in every sum
    names = ["embed", "pos_embed"][: 1 + graph.pos_embed]
    run = model.run(tokens, save=names).cache
    written += [run[name] for name in names]

    def reads(dest):
        column = graph.dests.index(dest)
        total = nobodys
        for s, value in enumerate(written):
            if graph.real[s, column]:
                total = total + (value if mask[s, column] else ablated[s])
        return total

    for layer in range(graph.n_layers):
        block = model.anatomy.blocks[layer]
        heads, bias = _attention(model, layer, [
            [reads(f"a{layer}.h{h}<{c}>") for c in "qkv"] for h in range(graph.n_heads)
        ])  # fmt: skip
        if graph.parallel:
            inner = block.mlp(block.ln2(reads(f"m{layer}")))
            written += [*heads, inner]
            nobodys = nobodys + bias
            continue
        written += heads
        nobodys = nobodys + bias
        x = reads(f"m{layer}")
        out = block.mlp(x if block.ln2 is None else block.ln2(x))
        if model.anatomy.family.mlp_norm is not None:
            out = block.mlp_branch(out)
        written.append(out * model.anatomy.residual_multiplier)
    assert [str(Node.parse(name)) for name in graph.sources] == list(graph.sources)
    return reads("logits")


def _attention(model, layer, streams):
    """What each head writes, and what none of them does."""
    anatomy, block = model.anatomy, model.anatomy.blocks[layer]
    groups = model.n_heads // model.n_kv_heads
    q, k, v = ([], [], [])
    for head, (xq, xk, xv) in enumerate(streams):
        norm = block.ln1 if block.ln1 is not None else torch.nn.Identity()
        q.append(norm(xq) @ model.W_Q[layer, head] + model.b_Q[layer, head])
        k.append(norm(xk) @ model.W_K[layer, head // groups] + model.b_K[layer, head // groups])
        v.append(norm(xv) @ model.W_V[layer, head // groups] + model.b_V[layer, head // groups])
    q, k, v = (torch.stack(x, 1) for x in (q, k, v))  # [prompt, head, pos, d_head]
    q, k = _qk_norms(block, q, k)
    q, k = _rotated(model, block, q, k)
    config = model.hf.config
    scale = getattr(block.attn, "scaling", None) or model.d_head**-0.5
    scores = q @ k.transpose(-1, -2) * scale
    if cap := getattr(config, "attn_logit_softcapping", None):
        scores = torch.tanh(scores / cap) * cap
    n = scores.shape[-1]
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if window and (types is None or types[layer] == "sliding_attention"):
        seen &= ~torch.ones(n, n, dtype=torch.bool).tril(-window)
    pattern = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    results = [(pattern[:, h] @ v[:, h]) @ model.W_O[layer, h] for h in range(model.n_heads)]
    bias = model.b_O[layer]
    if not block.norm_after_attn:
        return [
            r * anatomy.residual_multiplier for r in results
        ], bias * anatomy.residual_multiplier
    total = sum(results) + bias
    rms = (total.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
    gain = block.attn_branch.weight + anatomy.family.norm_offset
    return [r * gain / rms for r in results], bias * gain / rms


def _qk_norms(block, q, k):
    if hasattr(block.attn, "q_norm"):
        norms = block.attn.q_norm, block.attn.k_norm
        if norms[0].weight.shape[0] == q.shape[-1]:
            return norms[0](q), norms[1](k)
        flat = [x.transpose(1, 2).flatten(2) for x in (q, k)]  # OLMo-2: over all heads together
        heads = [q.shape[1], norms[1].weight.shape[0] // k.shape[-1]]
        kv = flat[1].unflatten(-1, (q.shape[1], -1))[:, :, :: q.shape[1] // heads[1]].flatten(2)
        q = norms[0](flat[0]).unflatten(-1, (heads[0], -1)).transpose(1, 2)
        k = norms[1](kv).unflatten(-1, (heads[1], -1)).transpose(1, 2)
        return q, k.repeat_interleave(q.shape[1] // heads[1], 1)
    return q, k


def _rotated(model, block, q, k):
    rotary = getattr(model.anatomy.decoder, "rotary_emb", None)
    if rotary is None:
        return q, k
    positions = torch.arange(q.shape[2])[None]
    cos, sin = rotary(q, positions)
    if cos.shape[-1] == q.shape[-1]:
        return apply_rotary_pos_emb(q, k, cos, sin)
    n = cos.shape[-1]  # part of each head only
    turned = apply_rotary_pos_emb(q[..., :n], k[..., :n], cos, sin)
    return tuple(torch.cat([t, x[..., n:]], -1) for t, x in zip(turned, (q, k), strict=True))
