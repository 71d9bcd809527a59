"""Quantities of representations: known values, invariances, and the definitions written out."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn import decomposition

from interp import figures, geometry
from interp.errors import MetricError, ResultError


def rows(n=60, d=7, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def rotation(d, seed=1):
    return torch.linalg.qr(rows(d, d, seed)).Q


def same(a, b, tolerance=1e-9):
    a, b = (torch.as_tensor(value, dtype=torch.double) for value in (a, b))
    return torch.allclose(a, b, atol=tolerance)


# -- pca ------------------------------------------------------------------------------------


def test_pca_is_scikit_learns():
    x = rows() @ torch.diag(torch.arange(1.0, 8.0, dtype=torch.double)) + 3
    ours, theirs = geometry.pca(x, 3), decomposition.PCA(3, svd_solver="full").fit(x.numpy())
    assert same(ours.components.abs(), np.abs(theirs.components_))
    assert same(ours.variance, theirs.explained_variance_)
    assert same(ours.share, theirs.explained_variance_ratio_)
    assert same(ours.projections.abs(), np.abs(theirs.transform(x.numpy())))
    assert same(ours.project(x), ours.projections)


def test_pca_rebuilds_its_rows_and_fixes_its_signs():
    x = rows(5, 9)
    found = geometry.pca(x)
    assert found.components.shape == (4, 9)
    assert same(found.projections @ found.components + found.mean, x)
    assert float(found.share.sum()) == pytest.approx(1.0)
    biggest = found.components.gather(1, found.components.abs().argmax(1, keepdim=True))
    assert (biggest > 0).all()
    # The rows mirrored have the same directions, with the same signs.
    assert same(geometry.pca(-x).components, found.components)


def test_pca_refuses_what_has_no_components():
    with pytest.raises(MetricError, match="all the same"):
        geometry.pca(torch.ones(4, 3))
    with pytest.raises(MetricError, match=r"expected 1 to 4"):
        geometry.pca(rows(5, 9), 5)
    with pytest.raises(MetricError, match="1 of 60 rows have NaN"):
        geometry.pca(rows().index_put((torch.tensor(3),), torch.tensor(torch.nan).double()))


# -- spectra --------------------------------------------------------------------------------


def test_ranks_of_known_spectra():
    square = torch.eye(6, dtype=torch.double)
    assert geometry.effective_rank(square).item() == pytest.approx(6)
    assert geometry.effective_rank(square[:, :1] @ square[:1]).item() == pytest.approx(1)
    cross = torch.cat([square, -square])  # centred, equal variance in each direction
    assert geometry.participation_ratio(cross).item() == pytest.approx(6)
    share = torch.tensor([3.0, 1.0]).double()
    expected = float(torch.special.entr(share / 4).sum().exp())
    assert geometry.effective_rank(torch.diag(share)).item() == pytest.approx(expected)
    uneven = torch.cat([torch.diag(share), -torch.diag(share)])  # variances 9 : 1
    assert geometry.participation_ratio(uneven).item() == pytest.approx(100 / 82)


def test_spectra_keep_under_rotation_and_scale_and_take_many_sets():
    x = rows() + 0.5
    turned = 4 * x @ rotation(7)
    for quantity in (geometry.effective_rank, geometry.participation_ratio, geometry.anisotropy):
        assert same(quantity(x), quantity(turned))
        assert same(quantity(torch.stack([x, x.flip(1) ** 3]))[0], quantity(x))
    assert same(geometry.participation_ratio(x), geometry.participation_ratio(x + 9))
    assert float(geometry.effective_rank(x + 9)) < float(geometry.effective_rank(x)) - 1


def test_anisotropy_is_the_mean_cosine_of_pairs():
    x = rows(12, 4)
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
    off = ~torch.eye(12, dtype=torch.bool)
    assert same(geometry.anisotropy(x), cosine[off].mean())
    assert geometry.anisotropy(torch.ones(3, 2)).item() == pytest.approx(1)
    assert geometry.anisotropy(torch.tensor([[1.0], [-1.0]])).item() == pytest.approx(-1)
    with pytest.raises(MetricError, match="1 rows are zero"):
        geometry.anisotropy(torch.eye(3) * torch.tensor([1.0, 1.0, 0.0]))


# -- similarity -----------------------------------------------------------------------------


def gram_hsic(x, y):
    """Song et al. 2012, equation 5, as written: with both kernels."""
    n = len(x)
    k, m = (z @ z.T for z in (x, y))
    k, m = (z - torch.diag(z.diag()) for z in (k, m))
    one = torch.ones(n, 1, dtype=x.dtype)
    return ((k @ m).trace() + (one.T @ k @ one) * (one.T @ m @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one.T @ k @ m @ one)).squeeze() / (n * (n - 3))  # fmt: skip


@pytest.mark.parametrize(("n", "d", "e"), [(40, 5, 6), (8, 30, 20)])
def test_cka_is_the_definition_with_both_kernels(n, d, e):
    x, y = rows(n, d), rows(n, e, 2) + rows(n, d)[:, :e].mean(1, keepdim=True)
    within = gram_hsic(x, x) * gram_hsic(y, y)
    assert same(geometry.cka(x, y), gram_hsic(x, y) / within.sqrt())
    h = torch.eye(n, dtype=torch.double) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    assert same(geometry.cka(x, y, debiased=False), (k * m).sum() / (k.norm() * m.norm()))


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_keeps_under_rotation_shift_and_scale_but_not_under_other_maps(debiased):
    x, y = rows(), rows(60, 5, 2) + rows()[:, :5]
    value = geometry.cka(x, y, debiased=debiased)
    assert same(geometry.cka(x, 3 * x @ rotation(7) + 2, debiased=debiased), 1.0)
    assert same(geometry.cka(5 * x @ rotation(7) - 1, y @ rotation(5), debiased=debiased), value)
    assert same(geometry.cka(y, x, debiased=debiased), value)
    stretched = x @ torch.diag(torch.tensor([9.0] + [1.0] * 6).double())
    assert abs(geometry.cka(stretched, y, debiased=debiased) - value) > 0.02


def test_only_the_debiased_cka_of_unrelated_rows_is_zero():
    pairs = [(rows(20, 60, s), rows(20, 60, 100 + s)) for s in range(20)]
    plain = torch.stack([geometry.cka(x, y, debiased=False) for x, y in pairs])
    debiased = torch.stack([geometry.cka(x, y) for x, y in pairs])
    assert plain.mean() > 0.6
    assert debiased.mean().abs() < 0.03


def test_rsa_is_spearman_of_distances():
    x, y = rows(15, 6), rows(15, 6, 2)
    upper = np.triu_indices(15, 1)
    first, second = (1 - np.corrcoef(z.numpy()) for z in (x, y))
    expected = spearmanr(first[upper], second[upper]).statistic
    assert geometry.rsa(x, y).item() == pytest.approx(expected)
    assert same(geometry.dissimilarity(x), first)
    assert same(geometry.rsa(x, 2 * x + 1), 1.0)
    cosine = geometry.rsa(x, y, distance="cosine")
    assert same(geometry.rsa(x @ rotation(6), 3 * y, distance="cosine"), cosine)
    assert same(geometry.rsa(x, 5 * x @ rotation(6), distance="cosine"), 1.0)


@pytest.mark.bad_input
def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(MetricError, match="row i of both being the same example"):
        geometry.cka(rows(5, 2), rows(6, 2))
    with pytest.raises(MetricError, match="n ≥ 4"):
        geometry.cka(rows(3, 2), rows(3, 2))
    with pytest.raises(MetricError, match="nothing to align"):
        geometry.cka(torch.ones(5, 2), rows(5, 2))
    with pytest.raises(MetricError, match="a row is constant"):
        geometry.rsa(torch.ones(5, 2), rows(5, 2))
    with pytest.raises(MetricError, match="expected 'correlation' or 'cosine'"):
        geometry.dissimilarity(rows(), distance="euclid")


# -- classes --------------------------------------------------------------------------------


def simplex(c=4, d=6, copies=5, noise=0.0):
    corners = torch.zeros(c, d, dtype=torch.double)
    corners[:, :c] = torch.eye(c, dtype=torch.double)
    labels = torch.arange(c).repeat_interleave(copies)
    return corners[labels] + noise * rows(c * copies, d) + 2, labels, corners


def test_collapsed_classes_are_a_simplex():
    x, labels, corners = simplex()
    found = geometry.class_geometry(x, labels, classifier=corners + 7)
    assert float(found.mean_cdnv) == pytest.approx(0, abs=1e-12)
    assert float(found.equinorm) == pytest.approx(0, abs=1e-9)
    off = ~torch.eye(4, dtype=torch.bool)
    assert same(found.cosines[off], torch.full((12,), -1 / 3).double())
    assert same(found.self_duality, torch.ones(4).double())
    assert found.classes == (0, 1, 2, 3)


def test_cdnv_is_variance_over_squared_distance():
    x = torch.tensor([[-1.0], [1.0], [9.0], [11.0], [8.0], [12.0]]).double()
    labels = torch.tensor([3, 3, 5, 5, 5, 5])
    found = geometry.class_geometry(x, labels)
    assert found.cdnv[0, 1].item() == pytest.approx((1 + 2.5) / (2 * 100))
    assert found.classes == (3, 5)
    assert found.self_duality is None


def test_class_geometry_keeps_under_rotation_scale_and_shift():
    x, labels, corners = simplex(noise=0.3)
    turn = rotation(6)
    one = geometry.class_geometry(x, labels, classifier=corners)
    two = geometry.class_geometry(5 * x @ turn - 3, labels, classifier=corners @ turn)
    for name in ("mean_cdnv", "equinorm", "cosines", "self_duality"):
        assert same(getattr(one, name), getattr(two, name))
    assert 0.01 < float(one.mean_cdnv) < 1
    assert float(one.equinorm) > 0.01


@pytest.mark.bad_input
def test_classes_that_do_not_fit_are_refused():
    x, labels, corners = simplex()
    with pytest.raises(MetricError, match="rows of one class"):
        geometry.class_geometry(x, torch.zeros(20, dtype=torch.long))
    with pytest.raises(MetricError, match=r"expected \[n, d\] and \[n\]"):
        geometry.class_geometry(x, labels[:3])
    with pytest.raises(MetricError, match="a row for each class"):
        geometry.class_geometry(x, labels, classifier=corners[:2])
    with pytest.raises(MetricError, match="two classes have the same mean"):
        geometry.class_geometry(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))


@pytest.mark.bad_input
def test_a_correlation_with_a_missing_number_is_missing():
    x, y = torch.tensor([1.0, 2, torch.nan, 3]), torch.arange(4.0)
    assert geometry.pearson(x, y).isnan()
    assert geometry.spearman(x, y).isnan()
    assert geometry.ranks(x).isnan().tolist() == [False, False, True, False]
    assert same(geometry.spearman(torch.stack([x, y]), y)[1], 1)


@pytest.mark.bad_input
def test_numpy_arrays_and_lists_are_arrays():
    x, y = rows(12, 3), rows(12, 4, 1)
    for of in (geometry.cka, geometry.rsa):
        assert same(of(x.numpy(), y.tolist()), of(x, y))
    for one in (geometry.effective_rank, geometry.participation_ratio, geometry.anisotropy):
        assert same(one(x.numpy()), one(x))
    assert same(geometry.pca(x.numpy()).project(x.tolist()), geometry.pca(x).projections)
    assert same(
        geometry.spearman(x[:, 0].tolist(), y[:, 0].numpy()), geometry.spearman(x[:, 0], y[:, 0])
    )
    points, labels, corners = simplex(noise=0.1)
    told = geometry.class_geometry(points.numpy(), labels.tolist(), classifier=corners.numpy())
    assert same(told.cosines, geometry.class_geometry(points, labels).cosines)


@pytest.mark.bad_input
def test_what_is_no_array_or_does_not_fit_is_refused():
    x = rows(12, 3)
    with pytest.raises(MetricError, match=r"pca\(\) got str 'a'; expected an array of numbers"):
        geometry.pca("a")
    with pytest.raises(MetricError, match="pca\\(k=1.5\\)"):
        geometry.pca(x, 1.5)
    with pytest.raises(MetricError, match=r"project\(\) got rows of shape \[12, 2\]"):
        geometry.pca(x).project(x[:, :2])
    with pytest.raises(MetricError, match="as many cells in both"):
        geometry.spearman(x, x[:, :2])


def test_a_figure_has_a_colour_for_each_label():
    x, labels, _ = simplex(noise=0.1)
    seen = geometry.pca(x, 2)
    names, (first, second) = [f"class {i}" for i in labels], seen.projections.T.tolist()
    axis = dict(zip(("x_name", "y_name"), seen.names(), strict=True))
    figure = figures.points(first, second, labels=names, named=[(0, "first")], title="t", **axis)
    axes = figure.axes[0]
    assert [group.get_label() for group in axes.collections] == [f"class {i}" for i in range(4)]
    assert [text.get_text() for text in axes.texts] == ["first"]
    assert axes.get_xlabel().startswith("component 1 (")
    with pytest.raises(ResultError, match="3 labels of 3 kinds for 20 points"):
        figures.points(first, second, labels=["a", "b", "c"], title="t", **axis)


@pytest.mark.bad_input
def test_names_of_points_may_be_any_token_and_all_labels_have_a_place():
    words = [f"{kind} of a long name, number {i}" for i, kind in enumerate(("$a^$", "b") * 18)]
    figure = figures.points(range(36), range(36), labels=words, named=[(0, "$x^$")], title="t",
                            x_name="x", y_name="y")  # fmt: skip
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.y0 >= 0
    assert box.x0 > figure.axes[0].get_window_extent().x1
    with pytest.raises(ResultError, match="2 x and 1 y"):
        figures.points([1, 2], [1], title="t", x_name="x", y_name="y")
    with pytest.raises(ResultError, match=r"names at \[5\]"):
        figures.points([1, 2], [1, 2], title="t", x_name="x", y_name="y", named=[(5, "a")])
