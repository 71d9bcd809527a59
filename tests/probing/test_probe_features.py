"""Probes on plain features: parity with scikit-learn, planted directions, controls, clear errors."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp.errors import MetricError, PromptError, ResultError
from interp.probing import controls
from interp.probing.crossfit import choose
from interp.probing.result import ProbeResult
from interp.probing.verb import probe_features

FAST = {"shuffles": 0, "controls": 0}


def planted(n=200, d=12, *, classes=2, noise=1.0, seed=0):
    """Features of uneven scale and offset that hold a label along one direction for each class."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=g)
    directions = torch.randn(classes, d, generator=g)
    x = noise * torch.randn(n, d, generator=g) + directions[labels]
    return x * torch.logspace(-1, 1, d) + 5, labels, directions


def folds_of(result):
    folds = result.folds.numpy()
    return [
        (np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(folds.max() + 1)
    ]


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_is_scikit_learns_with_the_scaler_fitted_in_the_fold(classes):
    x, labels, _ = planted(classes=classes)
    result = probe_features(x, labels, l2=0.05, **FAST)
    right = []
    for train, test in folds_of(result):
        theirs = make_pipeline(
            StandardScaler(), LogisticRegression(C=1 / (len(train) * 0.05), tol=1e-3)
        )
        theirs.fit(x[train], labels[train])
        right += list(theirs.predict(x[test]) == labels[test].numpy())
        assert (theirs.predict(x[test]) == result.predicted[0, test].numpy()).all()
    assert float(result.score) == pytest.approx(np.mean(right))
    balanced = balanced_accuracy_score(labels, result.predicted[0])
    assert float(result.scores("balanced_accuracy")) == pytest.approx(balanced)
    if classes == 2:
        folds = [roc_auc_score(labels[t], result.decision[0, t]) for _, t in folds_of(result)]
        assert float(result.scores("auc")) == pytest.approx(np.mean(folds))


@pytest.mark.parametrize(("kind", "l2"), [("ridge", 0.3), ("linear", None)])
def test_regression_is_scikit_learns(kind, l2):
    x, _, directions = planted()
    y = x @ directions[0] + torch.randn(200, generator=torch.Generator().manual_seed(3))
    result = probe_features(x, y, kind=kind, l2=l2, **FAST)
    left, around = 0.0, 0.0
    for train, test in folds_of(result):
        model = LinearRegression() if l2 is None else Ridge(alpha=len(train) * l2)
        guess = make_pipeline(StandardScaler(), model).fit(x[train], y[train]).predict(x[test])
        assert np.allclose(guess, result.predicted[0, test], atol=1e-3)
        left += np.square(guess - y[test].numpy()).sum()
        around += (y[test] - y[train].mean()).square().sum().item()
    assert float(result.score) == pytest.approx(1 - left / around, abs=1e-5)
    assert result.baseline == pytest.approx(0, abs=1e-6)


def test_more_dimensions_than_examples_give_the_same_probe():
    x, labels, _ = planted(60, 150, classes=3)
    result = probe_features(x, labels, l2=0.1, **FAST)
    scaler = StandardScaler().fit(x.double())
    theirs = LogisticRegression(C=1 / (60 * 0.1), tol=1e-8).fit(
        scaler.transform(x.double()), labels
    )
    ours = result.direction("features").double().numpy() * scaler.scale_
    assert np.allclose(ours, theirs.coef_, atol=1e-4)


def test_a_direction_acts_on_the_activation_as_it_is():
    x, labels, directions = planted(400, noise=0.7)
    for kind in ("logistic", "mean"):
        result = probe_features(x, labels, kind=kind, **FAST)
        w, b = result.direction("features"), result.bias("features")
        said = (x @ w + b > 0).long()
        assert (said == labels).float().mean() > 0.9
    means = x[labels == 1].mean(0) - x[labels == 0].mean(0)
    assert torch.allclose(w, means, atol=1e-5)
    true = (directions[1] - directions[0]) * torch.logspace(-1, 1, 12)
    assert torch.nn.functional.cosine_similarity(means, true, dim=0) > 0.9


def test_nearest_mean_of_several_classes():
    x, labels, _ = planted(classes=4)
    result = probe_features(x, labels, kind="mean", **FAST)
    for train, test in folds_of(result):
        means = torch.stack([x[train][labels[train] == c].mean(0) for c in range(4)])
        assert torch.equal(torch.cdist(x[test], means).argmin(1), result.predicted[0, test].long())


def test_a_document_never_stands_on_both_sides():
    """Each document has a look of its own and a random label: a probe that met it would know."""
    g = torch.Generator().manual_seed(0)
    documents = torch.arange(40).repeat_interleave(5)
    labels = torch.randint(2, (40,), generator=g)[documents]
    x = torch.randn(40, 64, generator=g)[documents] + 0.1 * torch.randn(200, 64, generator=g)
    apart = probe_features(x, labels, documents=documents, l2=0.01, types=documents, shuffles=9)
    mixed = probe_features(x, labels, l2=0.01, types=documents, shuffles=9)
    for d in range(40):
        assert len(set(apart.folds[documents == d].tolist())) == 1
    assert float(apart.score) < 0.65
    assert float(apart.seen) == 0.0
    assert apart.found() == []
    assert float(mixed.score) > 0.95
    assert float(mixed.seen) > 0.95
    # The control task sees through it: the probe only recognises documents.
    assert abs(float(mixed.selectivity())) < 0.05


def test_the_penalty_is_chosen_on_the_training_folds_alone():
    x, labels, _ = planted(120, 60, noise=3)
    result = probe_features(x, labels, l2=(0.001, 10.0, 0.1), **FAST)
    folds = result.folds.numpy()
    for fold in range(5):
        train = folds != fold
        garbage = torch.where(
            torch.from_numpy(train), labels, 1 - labels
        )  # test labels do not count
        args = (x.double().numpy()[train], garbage.double().numpy()[train], folds[train])
        assert result.l2[0, fold] == pytest.approx(choose(*args, "logistic", (10.0, 0.1, 0.001), 2))
    assert len({*result.l2[0].tolist()} - {0.001}) >= 1


def test_shuffled_labels_are_at_chance_and_swap_whole_documents():
    x, labels, _ = planted(noise=0.5)
    result = probe_features(x, labels, shuffles=19, controls=0, l2=0.1)
    assert float(result.score) > 0.95
    assert 0.4 < float(result.null.mean()) < 0.6
    assert float(result.p_values()) == pytest.approx(1 / 20)
    assert result.found() == ["features"]
    assert result.selectivity().isnan().all()
    documents = np.repeat(np.arange(6), 4)
    one_each = np.repeat(np.array([0, 1, 0, 1, 1, 1.0]), 4)
    swapped = controls.shuffled(one_each, documents, 5, 0)
    assert all((np.ptp(row.reshape(6, 4), axis=1) == 0).all() for row in swapped)
    assert (swapped.sum(1) == one_each.sum()).all()


def test_shuffled_classes_are_as_even_over_folds_as_the_true_ones():
    """Where nothing can be read, shuffled labels score what the true ones do: p is not small."""
    result = probe_features(torch.ones(40, 3), [0, 1] * 20, l2=0.1, shuffles=30, controls=0)
    assert float(result.score) == 0.5
    assert torch.equal(result.null, torch.full((1, 30), 0.5))
    assert float(result.p_values()) == 1.0
    folds = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 3])
    labels = np.array([0, 1, 0, 0, 1, 0, 0, 1, 1, 0.0])
    rows = controls.shuffled(labels, np.arange(10), 2000, 0, folds)
    for sizes in (slice(0, 4), slice(4, 10)):  # folds of one size swap their shares
        shares = {
            tuple(sorted(row[folds == f].sum() for f in np.unique(folds[sizes]))) for row in rows
        }
        assert len(shares) == 1
    assert len({tuple(row) for row in rows}) == 72  # of 210 that keep the total


def test_folds_may_outnumber_the_examples_of_a_class():
    """Leaving out one document at a time; the commonest class is never worse than half."""
    x, labels, _ = planted(30, 6, noise=0.1)
    result = probe_features(x, labels, folds=30, l2=0.1, shuffles=2)
    assert sorted(result.folds.tolist()) == list(range(30))
    few = probe_features(torch.randn(8, 3), [0, 1] * 4, shuffles=1)
    assert few.baseline == 0.5
    blocks = torch.arange(40) // 4
    apart = probe_features(torch.randn(40, 3), blocks % 2, documents=blocks, folds=10, shuffles=1)
    assert apart.baseline == 0.5  # not 0: in training the other class is always the commoner one


def test_noise_is_not_found_and_the_best_of_many_sites_is_corrected_for():
    g = torch.Generator().manual_seed(1)
    sites = {f"s{i}": torch.randn(60, 4, generator=g) for i in range(12)}
    labels = torch.randint(2, (60,), generator=g)
    result = probe_features(sites, labels, kind="mean", shuffles=19)
    assert float(result.p_values(corrected=False).min()) <= 0.15
    assert float(result.p_values().min()) > 0.05
    assert result.found() == []


def test_a_control_task_labels_types_at_random():
    targets = np.array([0, 0, 0, 1.0] * 25)
    types = np.repeat(np.arange(20), 5)
    drawn = controls.control_task(targets, types, 50, 0)
    assert all((np.ptp(row.reshape(20, 5), axis=1) == 0).all() for row in drawn)
    assert drawn.mean() == pytest.approx(0.25, abs=0.05)
    assert controls.control_task(targets, np.zeros(100, dtype=int), 5, 0).shape == (0, 100)


def test_the_interval_is_over_documents():
    """Ten examples of each document are no more than one."""
    x, labels, _ = planted(80, 6, noise=2)
    once = probe_features(x, labels, l2=0.1, **FAST)
    wide = once.interval().high - once.interval().low
    copies = torch.arange(80).repeat_interleave(10)
    many = probe_features(x[copies], labels[copies], documents=copies, l2=0.1, **FAST)
    naive = probe_features(x[copies], labels[copies], l2=0.1, **FAST)
    assert float(many.interval().high - many.interval().low) > 0.8 * float(wide)
    assert float(naive.interval().high - naive.interval().low) < 0.6 * float(wide)
    assert once.interval().low < once.score < once.interval().high
    assert torch.allclose(once.fold_scores().mean(1), once.score, atol=0.02)


def test_the_same_seed_gives_the_same_bytes_and_files_keep_them(tmp_path):
    x, labels, _ = planted(classes=3)
    words = [("red", "green", "blue")[i] for i in labels]
    first, again = (probe_features({"a": x, "b": x[:, :3]}, words, l2=0.1, shuffles=4, types=list(range(200)))
                    for _ in range(2))  # fmt: skip
    assert first.classes == ("blue", "green", "red")
    loaded = ProbeResult.load(first.save(tmp_path / "probe.safetensors"))
    for name, value in vars(first).items():
        for other in (getattr(again, name), getattr(loaded, name)):
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other) or value.isnan().all()
            elif name in ("weights", "biases"):
                assert all(torch.equal(a, b) for a, b in zip(value, other, strict=True))
            else:
                assert value == other
    assert loaded.direction("b").shape == (3, 3)
    frame = loaded.to_frame()
    assert list(frame["site"]) == ["a", "b"]
    assert {"accuracy", "low", "high", "baseline", "null", "p", "selectivity"} <= set(frame)
    assert "3 classes, 200 examples of 200 documents" in repr(loaded)
    with pytest.raises(ResultError, match="no probe at 'c'"):
        loaded.direction("c")
    with pytest.raises(MetricError, match="these labels have accuracy, balanced_accuracy"):
        loaded.scores("r2")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        ([0, 1] * 4, {}, "labels= has 8 entries; expected 10, one for each example"),
        ([1] * 10, {}, "all 10 labels are 1"),
        ([0.0, float("nan")] * 5, {}, "label 1 is nan"),
        ([0.5, 1.5] * 5, {}, "use kind='ridge'"),
        (["a", "b"] * 5, {"kind": "ridge"}, "use kind='logistic'"),
        ([0, 1] * 5, {"documents": [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]}, "folds=5 of 3 documents"),
        ([0, 1] * 5, {"documents": [0]}, "documents= has 1 entries"),
        ([0] * 9 + [1], {}, "class '1' occurs in one document only"),
        (5, {}, "given as int 5"),
        ("ab" * 5, {}, "given as str 'ababababab'"),
        (None, {}, "given as NoneType"),
        ([{"a": 1}] * 10, {}, "is no label"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(labels, options, text):
    with pytest.raises(PromptError, match=text):
        probe_features(torch.randn(10, 3), labels, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "svm"}, "expected one of logistic, ridge, linear, mean"),
        ({"metric": "r2"}, "expected one of accuracy, balanced_accuracy"),
        ({"l2": -1.0}, "expected positive numbers"),
        ({"l2": 0.1, "kind": "mean"}, "has no penalty"),
        ({"folds": 2}, "none to choose l2 on"),
        ({"shuffles": -1}, "shuffles=-1; expected a whole number, 0 or more"),
        ({"shuffles": "5"}, "shuffles='5'"),
        ({"folds": 2.5}, "folds=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"l2": "a"}, "l2='a'"),
    ],
)
@pytest.mark.bad_input
def test_options_that_do_not_fit_are_refused(options, text):
    with pytest.raises(MetricError, match=text):
        probe_features(torch.randn(10, 3), [0, 1] * 5, **options)


@pytest.mark.bad_input
def test_features_that_are_not_finite_or_of_one_size_are_refused():
    x = torch.randn(10, 3)
    x[4, 1] = torch.inf
    with pytest.raises(MetricError, match="1 of 10 examples have NaN or infinite features at 'f'"):
        probe_features({"f": x}, [0, 1] * 5)
    for odd in ({"f": x, "g": x[:5]}, x[:, :0]):
        with pytest.raises(MetricError, match="the same n at each site"):
            probe_features(odd, [0, 1] * 5)
    with pytest.raises(MetricError, match="'features' are str"):
        probe_features("x", [0, 1] * 5)
