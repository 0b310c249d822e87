"""How much each unit varies with the location, as a share of that with the object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.catalogue import Measure, entry, measures
from elsewhere.measures.similarity import DEAD_SHARE
from elsewhere.measures.tables import Reading, Table, Variables, scalar
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all


@dataclass(frozen=True)
class NormalizedVariance:
    """Variation over locations as a share of that over objects.

    Parameters
    ----------
    median
        Over living units, of their ratios; NaN where there is none.
    ratio
        Of the sums over units; NaN where there is no living one.
    dead_share
        Share of units that never vary, beyond what rounding makes of their values.
    per_unit
        float64 (unit,): the ratios; 0/0 is 1, x/0 infinite.
    rounding_share
        Share of units of which a spread is rounding, and counts as 0.
    """

    median: float
    ratio: float
    dead_share: float
    per_unit: Floats
    rounding_share: float = 0.0


class VarianceTally:
    """Collects both spreads of every unit: means of variances, or of standard `deviations`."""

    def __init__(self, *, deviations: bool = False) -> None:
        self._deviations = deviations
        self._transformed: list[Floats] = []
        self._sampled: list[Floats] = []
        self._rounded: list[NDArray[np.bool_]] = []

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        for _, values in stretch.columns():
            floor = stretch.rounding**2 * np.mean(values**2, axis=(0, 1))
            floor = np.sqrt(floor) if self._deviations else floor
            rounded = np.zeros(len(floor), dtype=bool)
            for kept, over in ((self._transformed, 1), (self._sampled, 0)):
                spread = self._spread(values, over=over, then=1 - over)
                rounded |= (spread > 0) & (spread <= floor)
                kept.append(np.where(spread <= floor, 0.0, spread))
            self._rounded.append(rounded)

    def _spread(self, values: Floats, *, over: int, then: int) -> Floats:
        """Return the mean over one axis of the spread over the other, shape (unit,)."""
        if values.shape[over] < 2:
            return np.full(values.shape[2], np.nan)
        # Less the first of them, so that what is constant has a variance of exactly zero.
        rest = values - values.take([0], axis=over)
        spread = rest.var(axis=over, ddof=1)
        if self._deviations:
            spread = np.sqrt(spread)
        found: Floats = spread.mean(axis=then - (then > over))
        return found

    def value(self) -> NormalizedVariance:
        """Return the summary, once all stretches are in."""
        transformed = np.concatenate(self._transformed)
        sampled = np.concatenate(self._sampled)
        if np.isnan(transformed).any() or np.isnan(sampled).any():
            return NormalizedVariance(np.nan, np.nan, np.nan, np.full(len(sampled), np.nan))
        ratios = _ratio(transformed, sampled)
        total = _ratio(transformed.sum(keepdims=True), sampled.sum(keepdims=True))
        dead = (transformed == 0) & (sampled == 0)
        living = ratios[~dead]
        return NormalizedVariance(
            float(np.median(living)) if living.size else np.nan,
            float(total[0]) if living.size else np.nan,
            float(dead.mean()),
            ratios,
            float(np.concatenate(self._rounded).mean()),
        )


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, with 0/0 = 1 and x/0 infinite."""
    found = np.where(above > 0, np.inf, 1.0)
    np.divide(above, below, out=found, where=below > 0)
    return found


def normalized_variance(activations: ArrayLike) -> NormalizedVariance:
    r"""Return the normalized variance of a layer's units.

    Per unit, :math:`TV = mean_o\, var_p\, a(o, p)` and :math:`SV = mean_p\, var_o\, a(o, p)`, with
    n - 1 in the denominators of the variances; the measure is TV / SV: 0 for a unit that ignores
    the location, about 1 for one to which a move is as much as another object.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.

    Returns
    -------
    NormalizedVariance
        NaN with fewer than two objects or locations.

    References
    ----------
    Quiroga, Torrents-Barrena, Lanzarini & Puig (2023), Applied Soft Computing 132:109817.

    Examples
    --------
    >>> objects = np.array([[[0.0, 0.0]], [[2.0, 0.0]]]).repeat(3, axis=1)
    >>> normalized_variance(objects).per_unit     # ignores the location; never varies
    array([0., 1.])
    """
    tally = VarianceTally()
    add_all(Stretch.whole(activations), tally)
    return tally.value()


def normalized_deviation(activations: ArrayLike) -> NormalizedVariance:
    r"""Return normalized variance as its authors' code has it: from standard deviations.

    Per unit, :math:`mean_o\, sd_p\, a(o, p)` over :math:`mean_p\, sd_o\, a(o, p)`: means of
    deviations, which is not the root of :func:`normalized_variance`.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.

    Returns
    -------
    NormalizedVariance
        ``ratio`` is that of the sums of deviations.

    References
    ----------
    As for :func:`normalized_variance`.

    Examples
    --------
    >>> normalized_deviation(np.random.default_rng(0).normal(size=(9, 9, 4))).median.__round__(1)
    1.0
    """
    tally = VarianceTally(deviations=True)
    add_all(Stretch.whole(activations), tally)
    return tally.value()


def _variance(name: str, table: Table, *, deviations: bool) -> Reading:
    tally = VarianceTally(deviations=deviations)

    def read() -> Variables:
        found: NormalizedVariance = tally.value()
        return {
            name: scalar(found.median),
            f"{name}_ratio": scalar(found.ratio),
            "dead_unit_share": scalar(found.dead_share),
        }

    def doubts() -> list[str]:
        found, remarks = tally.value(), []
        if found.rounding_share:
            remarks.append(f"{found.rounding_share:.2g} of the units vary by rounding only, as 0")
        if found.dead_share > DEAD_SHARE:
            remarks.append(
                f"{found.dead_share:.0%} of the units never vary and are left out of the median"
            )
        return remarks

    return Reading(tally, read, doubts=doubts)


_DEVIATION = Measure(
    normalized_deviation,
    "per unit, mean_o sd_p a / mean_p sd_o a; median over units",
    ("quiroga2023",),
    literature={
        "quiroga2023": entry(
            "article",
            author="Quiroga, Facundo Manuel and Torrents-Barrena, Jordina and Lanzarini, Laura "
            "Cristina and Puig-Valls, Domenec",
            title="Invariance Measures for Neural Networks",
            journal="Applied Soft Computing",
            volume="132",
            pages="109817",
            year="2023",
        ),
    },
    reading=partial(_variance, "normalized_deviation", deviations=True),
    headline="normalized_deviation",
    range="0 and more",
    direction="lower: locations matter less than objects",
    chance="1",
    question="Does a unit vary more over places or over objects?",
    can="It finds single units that are invariant, in layers of any kind.",
    cannot="It cannot tell whether objects can be told apart, and it has no interval.",
    least=2,
    sketches=False,
    memory=lambda table: 24.0 * table.n_units,
)
measures.add(
    "normalized-variance",
    replace(
        _DEVIATION,
        function=normalized_variance,
        formula="per unit, mean_o var_p a / mean_p var_o a; median over units",
        reading=partial(_variance, "normalized_variance", deviations=False),
        headline="normalized_variance",
    ),
    summary="variance over locations over variance over objects",
)
measures.add(
    "normalized-deviation",
    _DEVIATION,
    summary="the same from standard deviations, as its authors' code",
)
