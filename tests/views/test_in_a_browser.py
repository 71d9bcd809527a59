"""Views in headless Chromium, offline: the script has drawn, answers clicks, and views do not meet."""

import html
import json
import re

import matplotlib.image
import pytest
import torch

from interp.views import attention_html, framed, page
from tests.views.browser import dom, needs_browser, screenshot

pytestmark = needs_browser

TOKENS = ["<bos>", " When", " Mary", " and", "\n", " <b>John</b>"]
NAMES = [f"L{layer}.H{head}" for layer in range(2) for head in range(3)]


@pytest.fixture(scope="module")
def patterns():
    n = len(TOKENS)
    scores = torch.randn(6, n, n, generator=torch.Generator().manual_seed(0)) * 2
    return scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


#: Stands behind the views of a page, plays a reader, and writes down what can be seen.
READER = """
<script>
const seen = {};
const note = (name, root) => {
  seen[name] = [root.dataset.shown, root.querySelector(".readout").textContent,
                [...root.querySelectorAll(".text span")].map((s) => s.title)];
};
const [first, second] = document.querySelectorAll(".interp-attention");
note("start", first);
first.querySelectorAll(".heads button")[4].click();
note("head", first);
first.querySelectorAll(".text span")[3].dispatchEvent(new Event("mouseenter"));
note("token", first);
first.querySelector("select").value = "key";
first.querySelector("select").dispatchEvent(new Event("change"));
note("key", first);
first.querySelector("select").value = "query";
first.querySelector("select").dispatchEvent(new Event("change"));
first.querySelector(".all").click();
note("mean", first);
first.querySelector(".value").click();
note("weighted", first);
note("other", second);
const pen = second.querySelectorAll(".heads canvas")[1].getContext("2d");
seen.pixels = [...pen.getImageData(0, 0, 6, 6).data].filter((_, i) => i % 4 === 0);
const out = document.createElement("pre");
out.id = "seen";
out.textContent = JSON.stringify(seen);
document.body.append(out);
</script>
"""


@pytest.fixture(scope="module")
def seen(patterns, profile):
    lengths = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) + 0.1
    parts = [attention_html(TOKENS, patterns, NAMES, title="one", lengths=lengths),
             attention_html(TOKENS, patterns, NAMES, title="two"), READER]  # fmt: skip
    path = profile / "two.html"
    path.write_text(page("two views", parts), encoding="utf-8")
    document = dom(path, profile)
    (text,) = re.findall(r'<pre id="seen">(.*?)</pre>', document, re.S)
    return document, json.loads(html.unescape(text)), lengths


def test_both_views_are_drawn(seen):
    document, _, _ = seen
    assert document.count('data-drawn="6"') == 2
    assert len(re.findall(r"<canvas", document)) == 2 * (6 + 1)
    assert (
        len(re.findall(r'<button[^>]*aria-pressed="true"', document)) == 6 + 1
    )  # all of one, the first of two
    assert "&lt;b&gt;John&lt;/b&gt;" in document
    assert "<b>John" not in document


def close(shown, expected):
    """Whether tokens say these shares; those without one say nothing."""
    numbers = torch.tensor([float(text) for text in shown if text])
    return torch.allclose(numbers, expected, atol=0.0011)


def test_tokens_show_the_models_shares(seen, patterns):
    _, found, _ = seen
    name, readout, shown = found["start"]
    assert name == "L0.H0"
    assert close(shown, patterns[0, 5])
    best = int(patterns[0, 5].argmax())
    assert readout.startswith("L0.H0: “<b>John</b>” 5 looks at “")
    assert f"” {best} ({float(patterns[0, 5, best]):.3f})" in readout
    assert (found["head"][0], close(found["head"][2], patterns[4, 5])) == ("L1.H1", True)
    assert close(found["token"][2], patterns[4, 3, :4])
    assert found["token"][2][4:] == ["", ""]  # nothing after the query
    assert close(found["key"][2], patterns[4, 3:, 3])
    assert "is looked at by" in found["key"][1]


def test_heads_are_averaged_and_weighted_by_value(seen, patterns):
    _, found, lengths = seen
    assert found["mean"][0] == "mean of 6 heads"
    assert close(found["mean"][2], patterns[:, 3, :4].mean(0))
    rows = patterns[:, 3, :4] * lengths[:, :4]
    assert close(found["weighted"][2], (rows / rows.sum(-1, keepdim=True)).mean(0))


def test_views_on_one_page_do_not_meet(seen, patterns):
    _, found, _ = seen
    assert found["other"][0] == "L0.H0"
    assert close(found["other"][2], patterns[0, 5])


def test_thumbnails_are_painted_by_share(seen, patterns):
    _, found, _ = seen
    red = torch.tensor(found["pixels"], dtype=torch.float).view(6, 6)
    lower = torch.tril_indices(6, 6)
    share, painted = patterns[1][tuple(lower)], red[tuple(lower)]
    order = share.argsort()
    assert bool((painted[order].diff() <= 1).all())  # more attention is darker
    upper = torch.triu_indices(6, 6, 1)
    assert set(red[tuple(upper)].tolist()) == {244.0}


def test_tokens_that_turn_the_text_round_are_written_out(profile):
    """An override of direction would mirror every token behind it, and the readout."""
    tokens = ["</script>", "\u202eabc", "\r", "\u0645\u0631\u062d\u0628\u0627", "end"]
    shares = torch.eye(5)[None].clone()
    shares[0, 4] = torch.tensor([0.1, 0.2, 0.1, 0.4, 0.2])
    path = profile / "directions.html"
    path.write_text(
        page("directions", [attention_html(tokens, shares, ["L0.H0"])]), encoding="utf-8"
    )
    shown = dom(path, profile).partition('class="text"')[2]
    assert "\u202e" not in shown.partition("</section>")[0]
    assert "\\u202eabc" in shown
    assert "\\u000d" in shown
    assert "“\u2068\u0645\u0631\u062d\u0628\u0627\u2069” 3 (0.400)" in shown
    assert "“end” 4 looks at" in shown


def test_a_page_may_load_nothing(profile):
    """The page's own policy forbids what a fragment asks for, even of this machine."""
    (profile / "secret.js").write_text("document.body.dataset.loaded = 'yes'")
    fragment = '<p>a</p><script src="secret.js"></script><script>document.body.dataset.ran = "yes"</script>'
    path = profile / "policy.html"
    path.write_text(page("policy", [fragment]), encoding="utf-8")
    document = dom(path, profile)
    assert 'data-ran="yes"' in document
    assert "data-loaded" not in document
    path.write_text(f"<body>{fragment}</body>", encoding="utf-8")  # without it, it would be loaded
    assert 'data-loaded="yes"' in dom(path, profile)


def test_each_frame_of_a_notebook_draws_its_own_view(patterns, profile):
    """Frames are opaque to the page: what is seen of them is a picture."""
    document = page("cell", [attention_html(TOKENS, patterns, NAMES)])
    path = profile / "notebook.html"
    path.write_text("<body>" + framed(document, height=600) * 2, encoding="utf-8")
    picture = matplotlib.image.imread(screenshot(path, profile, height=1250))
    blue = (picture[..., 2] - picture[..., 0] > 0.2).sum(1)  # a frame's matrix and thumbnails
    assert blue[:600].sum() > 2000
    assert blue[610:].sum() == pytest.approx(blue[:600].sum(), rel=0.02)
