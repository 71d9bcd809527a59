"""Attention views: numbers, sizes and refusals, without a browser."""

import html
import json
import re

import pytest
import torch

import interp
from interp.errors import ResultError
from interp.lenses.attention import AttentionResult
from interp.views import attention_html, page
from tests import tiny


def patterns(heads=2, n=5, seed=0):
    scores = torch.randn(heads, n, n, generator=torch.Generator().manual_seed(seed)) * 2
    ahead = torch.ones(n, n, dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(-1)


def data_of(fragment):
    return json.loads(re.search(r'<script[^>]*class="data">(.*?)</script>', fragment, re.S)[1])


def decoded(text, n):
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    numbers = [digits.index(a) * 64 + digits.index(b)
               for a, b in zip(text[::2], text[1::2], strict=True)]  # fmt: skip
    out = torch.zeros(n, n)
    out[tuple(torch.tril_indices(n, n))] = torch.tensor(numbers) / 1000
    return out


def test_shares_are_kept_to_three_digits():
    given = patterns(3, 6)
    data = data_of(attention_html(list("abcdef"), given, ["L0.H0", "L0.H1", "L1.H0"]))
    assert data["tokens"] == list("abcdef")
    for text, pattern in zip(data["patterns"], given, strict=True):
        assert float((decoded(text, 6) - pattern).abs().max()) <= 0.0005 + 1e-6


@pytest.mark.parametrize("token", ["</script><b>", "<!--", "&amp;", '"', "\n", "", "é🙂", "\u2028"])
def test_any_token_is_data_and_no_markup(token):
    fragment = attention_html(["a", token], patterns(1, 2), ["L0.H0"], title=f"<i>{token}")
    assert data_of(fragment)["tokens"] == ["a", token]
    assert fragment.count("</script>") == 2
    assert "<i>" not in fragment
    assert "<b>" not in fragment


def test_nothing_is_loaded_from_elsewhere():
    document = page("a", [attention_html(["a", "b"], patterns(1, 2), ["L0.H0"])])
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(", document)
    assert "default-src 'none'" in document


def test_without_javascript_a_table_says_where_heads_look():
    given = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.1, 0.7, 0.2]]])
    fragment = attention_html(["a", "b", "c"], given, ["L2.H7"])
    table = html.unescape(re.search(r"<noscript>(.*?)</noscript>", fragment, re.S)[1])
    assert "L2.H7" in table
    assert re.sub(r"\s+", " ", re.search(r"'b'.*", table)[0]).startswith(
        "'b' 0.70 · 'c' 0.20 · 'a'"
    )


@pytest.mark.bad_input
def test_what_is_refused():
    tokens, names = ["a", "b"], ["L0.H0"]
    with pytest.raises(ResultError, match=r"expected \[1, 2, 2\]"):
        attention_html(tokens, patterns(1, 3), names)
    with pytest.raises(ResultError, match="look at later tokens"):
        attention_html(tokens, torch.full((1, 2, 2), 0.5), names)
    with pytest.raises(ResultError, match="no shares"):
        attention_html(tokens, patterns(1, 2) - 0.5, names)
    with pytest.raises(ResultError, match=r"expected \[head, key\]"):
        attention_html(tokens, patterns(1, 2), names, lengths=torch.ones(2, 2))
    with pytest.raises(ResultError, match="these lengths have NaN"):  # no JSON: a blank view
        attention_html(tokens, patterns(1, 2), names, lengths=torch.full((1, 2), torch.nan))


def test_large_views_are_warned_about_and_then_refused():
    from interp.views import attention

    with pytest.warns(UserWarning, match="takes a while to open. Choose fewer heads"):
        attention._check_size(32, 600)
    with pytest.raises(ResultError, match=r"make a view of 269 MB, more than the 64 MB"):
        attention._check_size(64, 2048)
    attention._check_size(24, 128)


def test_the_view_of_a_result_is_saved_whole(tmp_path):
    model = interp.load("demo")
    result = interp.attention(model, "The capital of France is")
    view = result.view()
    document = view.save(tmp_path / "deep" / "a.html").read_text(encoding="utf-8")
    data = data_of(document)
    assert data["names"] == list(result.heads)
    assert data["tokens"] == list(result.tokens)
    assert "24 heads, 6 tokens" in repr(view)
    assert len(document) < 60_000
    assert document == result.view().html()  # the same result, the same bytes
    cell = view._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', cell)[1]) == document
    assert 'sandbox="allow-scripts"' in cell
    loaded = AttentionResult.load(result.save(tmp_path / "a.safetensors"))
    assert torch.equal(loaded.value_lengths, result.value_lengths)
    assert loaded.view().html() == document


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "falcon", "granite"])
def test_value_lengths_are_of_what_a_head_writes_for_each_key(family):
    model = interp.load(tiny.shared(family), check=False)
    ids = tiny.tokens(1, 6)
    result = interp.attention(model, ids, "L1.H1,3")
    v = model.run(ids, save="L1.v").cache["L1.v"][0].repeat_interleave(
        model.n_heads // model.n_kv_heads, 1)  # fmt: skip
    each = torch.einsum("khd,hdm->hkm", v, model.W_O[1].clone())
    assert torch.allclose(result.value_lengths, each[[1, 3]].norm(dim=-1), atol=1e-5)
    # Weighted by the pattern they are the head's own output.
    written = torch.einsum("hqk,hkm->qhm", result.patterns, each[[1, 3]])
    z = model.run(ids, save="L1.z").cache["L1.z"][0]
    real = torch.einsum("qhd,hdm->qhm", z, model.W_O[1].clone())[:, [1, 3]]
    assert torch.allclose(written, real, atol=1e-4)
