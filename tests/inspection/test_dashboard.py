"""The dashboard in headless Chromium, offline: it opens, is searched, sorted, walked with keys and linked to."""

import html
import json
import re
from dataclasses import replace

import matplotlib.image
import pytest

from interp.errors import DictionaryError, ResultError
from interp.inspection import dashboard
from tests.inspection.conftest import ALWAYS, DEAD, FRANCE, PARIS
from tests.views.browser import dom, needs_browser, screenshot

NASTY = "</script><img src=x onerror=\"document.body.dataset.harm='yes'\">"

#: Stands behind the page, plays a reader, and writes down what can be seen.
READER = """
<script>
const seen = {};
const all = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
const note = (name) => {
  seen[name] = {shown: document.body.dataset.shown, list: all("#rows .name"), count: all("#count")[0],
    head: all("article h2")[0], hash: location.hash, chosen: all('.item[aria-selected="true"] .name')};
};
const $id = (id) => document.getElementById(id);
const type = (text) => { $id("search").value = text; $id("search").dispatchEvent(new Event("input")); };
const pick = (id, value) => { $id(id).value = value; $id(id).dispatchEvent(new Event("change")); };
const key = (name, target) => (target || document.body).dispatchEvent(
  new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
note("start");
seen.own = all(".passage .own");
seen.headings = all("article h3");
seen.stats = all(".stats div");
seen.bars = all(".bars .word");
seen.titles = [...document.querySelectorAll(".passage .text span")].map((s) => [s.textContent, s.title]);
const middle = (e) => { const box = e.getBoundingClientRect(); return (box.top + box.bottom) / 2; };
seen.off = [...document.querySelectorAll(".passage")].filter((p) => p.querySelector(".left").lastChild)
  .map((p) => middle(p.querySelector(".own")) - middle(p.querySelector(".left").lastChild));
document.querySelectorAll(".item")[2].click(); note("click");
type("France"); note("token"); seen.found = all(".passage .found").length;
pick("scope", "logits"); type("Paris"); note("logits");
pick("scope", "any"); type("4"); note("number");
type("nothing at all"); note("nothing");
key("Escape", $id("search")); note("cleared");
pick("sort", "f"); note("frequency");
$id("direction").click(); note("ascending");
pick("sort", "number"); key("ArrowDown"); note("down"); key("j"); note("j"); key("End"); note("end");
key("k"); note("k"); key("/"); seen.focused = document.activeElement.id;
key("ArrowUp", $id("search")); note("up");
seen.dark = [getComputedStyle(document.body).backgroundColor];
$id("theme").click(); seen.dark.push(getComputedStyle(document.body).backgroundColor);
seen.loaded = performance.getEntriesByType("resource").map((e) => e.name);
location.hash = "#F3";
window.addEventListener("hashchange", () => {
  note("hash");
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script></body>"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def seen(found, profile):
    path = found.dashboard(profile / "features.html")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", READER), encoding="utf-8")
    document = dom(path, profile)
    (told,) = re.findall(r'<pre id="seen">(.*?)</pre>', document, re.S)
    return document, json.loads(html.unescape(told))


@needs_browser
def test_it_opens_and_loads_nothing(seen, found):
    document, told = seen
    assert 'data-ready="5"' in document
    assert told["start"]["list"] == list(found.names)
    assert told["start"]["shown"] == "F0"
    assert told["loaded"] == []
    assert told["dark"][0] != told["dark"][1]


@needs_browser
def test_the_card_says_what_was_found(seen, found):
    _, told = seen
    one = found.feature(FRANCE)
    passages = [*one.top, *(p for _, _, drawn in one.sampled for p in drawn)]
    assert told["own"] == [p.words[p.centre] for p in passages]
    assert told["bars"] == [
        word for pairs in (one.raises, one.lowers, one.embedding) for word, _ in pairs
    ]
    assert any("100%of the strongest are “France”" in text for text in told["stats"])
    shown = [(word, title.split("  ")[-1]) for word, title in told["titles"]]
    assert [word for word, _ in shown] == [word for p in passages for word in p.words]
    exact = [value for p in passages for value in p.values]
    for (_, value), true in zip(shown, exact, strict=True):
        assert float(value.lstrip("≈ ")) == pytest.approx(true, abs=one.most / 62)


@needs_browser
def test_what_stands_before_a_token_stands_beside_it(seen):
    off = seen[1]["off"]
    assert len(off) > 10
    assert max(map(abs, off)) < 5  # a line is more than 20 pixels high


@needs_browser
def test_a_click_shows_the_card_and_links_to_it(seen):
    told = seen[1]["click"]
    assert (told["shown"], told["hash"], told["chosen"]) == ("F2", "#F2", ["F2"])
    assert told["head"].startswith("F2")
    assert seen[1]["hash"]["shown"] == "F3"


@needs_browser
def test_search_finds_by_token_and_by_number(seen):
    _, told = seen
    assert told["token"]["shown"] == "F0"
    assert told["token"]["list"][:2] == ["F0", "F1"]
    assert told["found"] > 5
    assert "F2" in told["logits"]["list"]
    assert told["number"]["shown"] == "F4"
    assert told["nothing"]["list"] == []
    assert told["nothing"]["count"] == "0 of 5 features"
    assert told["cleared"]["count"] == "5 features"


@needs_browser
def test_sorting_and_keys(seen, found):
    _, told = seen
    by_count = [found.names[i] for i in found.count.argsort(descending=True, stable=True).tolist()]
    assert told["frequency"]["list"] == by_count
    assert told["frequency"]["shown"] == by_count[0] == found.names[ALWAYS]
    assert told["ascending"]["list"][0] == found.names[DEAD]
    walked = [told[step]["shown"] for step in ("down", "j", "end", "k")]
    assert walked == ["F1", "F2", "F4", "F3"]
    assert told["focused"] == "search"
    assert told["up"]["shown"] == "F2"


@needs_browser
def test_token_text_is_inert(found, profile):
    ids = [int(found.own_token[FRANCE]), int(found.logit_top_ids[PARIS, 0])]
    words = {**found.words, str(ids[0]): NASTY, str(ids[1]): "\u202e<b>bold</b>&amp;\n"}
    path = replace(found, words=words).dashboard(profile / "nasty.html", title="<i>mine</i>")
    document = dom(path, profile)
    assert 'data-ready="5"' in document
    assert "data-harm" not in document
    assert not re.search(r"<img|<b>bold|<i>mine", document)
    assert "&lt;i&gt;mine&lt;/i&gt;" in document
    assert "&lt;/script&gt;&lt;img" in document
    assert "\u202e" not in document.partition('<article id="card"')[2].partition("</article>")[0]


@needs_browser
def test_a_link_opens_its_feature_and_a_picture_is_drawn(found, profile):
    path = found.dashboard(profile / "link.html", which=["F4", 0])
    text = path.read_text(encoding="utf-8").replace("<script>", '<script>location.hash = "F0";', 1)
    path.write_text(text, encoding="utf-8")
    document = dom(path, profile)
    assert 'data-shown="F0"' in document
    assert 'data-ready="2"' in document
    picture = matplotlib.image.imread(screenshot(path, profile, width=1300))
    red = (picture[..., 0] - picture[..., 2] > 0.2).sum()  # shades of examples and bars
    assert red > 2000


@needs_browser
def test_a_notebooks_frame_shows_one_card(found, profile):
    path = profile / "cell.html"
    path.write_text(f"<body>{found.feature('F0')._repr_html_()}</body>", encoding="utf-8")

    def red():
        picture = matplotlib.image.imread(screenshot(path, profile))
        return (picture[..., 0] - picture[..., 2] > 0.2).sum()

    # on a busy machine the browser may take its picture before the frame is drawn
    assert any(red() > 2000 for _ in range(3))


def test_the_file_needs_nothing_and_is_small(found, tmp_path):
    path = found.dashboard(tmp_path / "features.html")
    text = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert re.findall(r"https?://[^\"' ]+", text) == [
        "http://www.w3.org/2000/svg"
    ]  # a name, not an address
    assert not re.search(r"<(link|iframe|img|script src|object|embed)\b", text)
    fixed = len(dashboard.html(found, [DEAD]))
    assert (len(text) - fixed) / 4 < 4000  # four live features


def test_windows_are_written_in_few_characters():
    encoder = dashboard._Encoder({7: 0, 9: 64}, 2)
    assert (encoder._digits(0), encoder._digits(64), encoder._digits(4095)) == ("AA", "BA", "__")
    assert [dashboard._level(x, 4.0) for x in (0.0, 1e-9, 2.0, 4.0, 4.1)] == [0, 1, 31, 62, 62]


def test_numbers_that_are_none_are_json(found):
    text = dashboard._json(
        {"a": [dashboard._short(float("nan")), dashboard._short(2.0)], "b": "</script>"}
    )
    assert json.loads(text) == {"a": [None, 2], "b": "</script>"}
    assert "<" not in text


def test_what_cannot_be_shown(found, tmp_path, monkeypatch):
    with pytest.raises(DictionaryError, match="feature 'F77' is not among these 5"):
        found.dashboard(tmp_path / "a.html", which=["F77"])
    with pytest.raises(ResultError, match="a dashboard of no features"):
        found.dashboard(tmp_path / "a.html", which=[])
    monkeypatch.setattr(dashboard, "_MOST", 1000.0)
    with pytest.raises(ResultError, match="5 features make a page of .* MB, more than"):
        found.dashboard(tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_readers_without_scripts_see_a_table(found):
    text = dashboard.html(found, list(range(5)))
    table = re.search(r"<noscript>(.*?)</noscript>", text, re.S)[1]
    assert "<td>F0</td>" in table
    assert " France" in table
