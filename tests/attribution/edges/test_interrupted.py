"""Exact scores that Ctrl-C cut short, and numbers of prompts whose own scores are not kept."""

import pytest
import torch
from matplotlib.text import Text

import interp
from interp.errors import ResultError, RunError
from interp.graph import Setting
from tests.attribution.cases import model_of, pairs_of


def exact(model, prompts, **options):
    return interp.attribute(model, prompts, "edges", method="exact", **options)


@pytest.fixture
def interrupted(monkeypatch):
    """A run that is stopped after a hundred edges."""

    def run(model, prompts, **options):
        calls, scores = [], Setting.scores

        def stop(self, kept, **more):
            calls.append(len(kept))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return scores(self, kept, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Setting, "variants_at_once", 50)
            patch.setattr(Setting, "scores", stop)
            with pytest.warns(UserWarning, match="100 of 302 edges are scored"):
                return exact(model, prompts, **options)

    return run


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_finished_is_kept_and_gone_on_from(interrupted, kept, monkeypatch, tmp_path):
    model = model_of("gpt2")
    prompts = pairs_of(model)
    if not kept:
        monkeypatch.setattr("interp.attribution.edges.verb._KEPT", 0)
    whole, part = exact(model, prompts), interrupted(model, prompts)
    assert (whole.finished, part.finished) == (True, False)
    assert "100 of them scored" in repr(part)
    assert "of them scored" not in repr(whole)
    flat = part.values[part.graph.index]
    assert int(flat.isnan().sum()) == 202
    assert torch.allclose(flat[:100], whole.values[whole.graph.index][:100], atol=1e-9)
    assert part.ranked()[-202:] == part.graph.edges[100:]
    texts = [[text.get_text() for text in one.plot().findobj(Text)] for one in (part, whole)]
    assert [any("no score" in t or "has a score" in t for t in own) for own in texts] == [
        True,
        False,
    ]
    part.save(tmp_path / "part.safetensors")
    again = exact(model, prompts, resume=tmp_path / "part.safetensors")
    assert again.finished
    assert (again.per_prompt is None) == (not kept)
    assert torch.allclose(again.values, whole.values, atol=1e-6, equal_nan=True)
    once_more = exact(model, prompts, resume=again)  # nothing is left to do
    assert torch.equal(once_more.values.nan_to_num(), again.values.nan_to_num())


def test_another_call_is_not_gone_on_from(interrupted):
    model = model_of("gpt2")
    prompts = pairs_of(model)
    part = interrupted(model, prompts)
    for options in ({"ablation": "zero"}, {"metric": "prob"}, {"freeze_norms": True}):
        with pytest.raises(ResultError, match="resume= is another sweep"):
            exact(model, prompts, resume=part, **options)
    with pytest.raises(ResultError, match="its graph is"):
        exact(model, prompts, resume=part, units="m1.n3")
    with pytest.raises(RunError, match="belongs to method='exact'"):
        interp.attribute(model, prompts, "edges", method="eap", resume=part)


@pytest.mark.parametrize("method", ["exact", "eap", "information-flow"])
def test_means_of_many_prompts_are_the_same(method, monkeypatch):
    model = model_of("gpt2")
    prompts = pairs_of(model)
    whole = interp.attribute(model, prompts, "edges", method=method)
    monkeypatch.setattr("interp.attribution.edges.verb._KEPT", 0)
    mean = interp.attribute(model, prompts, "edges", method=method, batch=1)
    assert mean.per_prompt is None
    assert torch.allclose(mean.values, whole.values, atol=1e-6, equal_nan=True)
    assert torch.allclose(mean.empty, whole.empty, atol=1e-5)
