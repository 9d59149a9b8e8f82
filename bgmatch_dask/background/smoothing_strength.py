"""The strengths of the priors and the robust weights, chosen from the data.

The priors are Gaussian, so that their strengths are variance components. They are found by
maximising the restricted likelihood with the fixed-point steps of Fellner and Schall (in the
form of Wood and Fasiolo 2017, Biometrics 73, 1071)::

    λ ← φ · (rank K − λ tr(H⁻¹ K)) / (θᵀ K θ).

The bracket is the number of parameters that the data, not the prior, determine. Traces are
exact, so that nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.evidence import Evidence, evidence_of
from bgmatch_dask.background.layout import taps
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.penalty import PLANE, TREND
from bgmatch_dask.background.robust import redescending_weights, robust_scale
from bgmatch_dask.background.sky_solvers import SkySolver, factorise
from bgmatch_dask.background.sky_system import SkySystem, Strengths
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.strength_steps import BOUNDS, next_strengths
from bgmatch_dask.numerics.tap_kernels import TapRows, apply

__all__ = ("MOST_MODES", "Tuned", "draft", "tune")

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

# Weak enough to follow scattered light; overlaps that are narrow cannot tell it from a bad pair.
_FIRST_SMOOTHING = 0.05
_FIRST_SMOOTHING_LOOSE = 0.1
_FIRST_RIDGE = 10.0
_FIRST_CURVATURE = 1e-2
_NOISE_FREE = 1e-20
_CORRECTIONS = 8
_CORRECTED = 1e-13
_SMALL = 1e-5
_SMALL_DRAFT = 1e-2
_STRONGER = 3.0
_SETTLED = 0.2
_LEAST_SCALE = 1.0
_MAX_STRONGER = 4

MOST_MODES = 200
"""Modes of a visit before anything is known of its strength."""
_MOST_DRAFT = 300
_FEW = 2
_GAIN = 0.99
# Shares of a mode that the prior leaves, of the smallest that are kept.
_SMALLEST_DRAFT = 0.1
_SMALLEST = 1.0 / 100.0
_MOST_WHOLE = 600
_FEWEST_MODES = 64
_EVEN = 8


@dataclass(frozen=True, slots=True)
class Data:
    """The differences, and how they are weighed."""

    observations: Observations
    """Observations whose ends all have a number."""
    taps: TapRows
    """Operator from the nodes to them."""
    systematic: float
    """Variance of every sample beyond photon noise."""
    trust: Array
    """Robust weight of each sample."""
    pair_trust: Array
    """Robust weight of each observation against the others of its site."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """Strengths, robust weights, and the solution they lead to."""

    data: Data
    """The differences with their weights."""
    solver: SkySolver
    """Factorised equations of the solution."""
    theta: Array
    """Modes of all visits."""
    left: Array
    """What each sample still needs, less the sky of its site."""
    noise: float
    """Noise variance of a weight of one, unit squared."""
    evidence: tuple[Evidence, ...]
    """What each visit says about its strengths; none where nobody asked."""
    score: float
    """Generalised cross-validation, up to a factor."""

    @property
    def freedom(self) -> Array:
        """Effective parameters of each visit, as far as they are known."""
        known = [e.freedom for e in self.evidence]
        return np.array(known) if known else np.zeros(len(self.solver.priors))

    @property
    def strengths(self) -> Strengths:
        """Strengths of the solution."""
        return self.solver.strengths


def tune(
    system: SkySystem,
    observations: Observations,
    anchored: Plane,
    config: SolveConfig,
    start: Strengths | None = None,
    *,
    keep: bool = False,
) -> Tuned:
    """Choose strengths and robust weights together, and solve.

    Parameters
    ----------
    system
        Normal equations.
    observations
        The data, whose ends all have a number.
    anchored
        Visits whose slopes get no ridge.
    config
        Given strengths, and numbers of iterations.
    start
        Strengths to begin with.
    keep
        Whether to end with them too.

    Returns
    -------
    Tuned
        The last solution belongs to the weights and strengths that are returned with it.
    """
    if not keep and _chooses(anchored, config):
        tuned = draft(system, observations, anchored, config, start)
        if tuned.noise == 0.0:
            return tuned
        if config.smoothing is None:
            tuned = _smoothest(tuned)
        strengths = tuned.strengths
        return _solve(_whole(system, strengths, tuned.data), tuned.data, strengths, tuned)
    data = _data(system, observations)
    strengths = _first_strengths(anchored, config) if start is None else start
    # A strength that is given may be weak, and then needs all modes.
    most = _MOST_WHOLE if config.smoothing is None else system.layout.n_nodes
    system = _with_modes(system, strengths, data, _SMALLEST, most)
    return _settled(_solve(system, data, strengths), config, rough=False)


def draft(
    system: SkySystem,
    observations: Observations,
    anchored: Plane,
    config: SolveConfig,
    start: Strengths | None = None,
    most_modes: int = MOST_MODES,
) -> Tuned:
    """Choose strengths and robust weights with few modes; the solution is a rough one.

    Parameters are those of `tune`; and ``most_modes``, the modes that a visit has at most before
    anything is known of its strength.
    """
    data = _data(system, observations)
    strengths = _first_strengths(anchored, config) if start is None else start
    system = _draft(system, strengths, data, most_modes)
    tuned = _settled(_solve(system, data, strengths, judged=False, rough=True), config, rough=True)
    if tuned.noise == 0.0:
        return tuned
    tuned = _judged(tuned)
    # Strengths that come from cells are nearly right.
    few = 0 if start is not None else _FEW + 1
    for count in range(config.n_strength):
        if tuned.noise == 0.0:
            return tuned
        data, strengths = (
            _reweighted(tuned, config),
            next_strengths(tuned.solver, tuned.evidence, tuned.noise, config),
        )
        most = most_modes if count + 1 < few else _MOST_DRAFT
        score = tuned.score
        tuned = _solve(_draft(system, strengths, data, most), data, strengths, tuned, rough=True)
        if count >= few and tuned.score > _GAIN * score:
            break
    return tuned


def _chooses(anchored: Plane, config: SolveConfig) -> bool:
    """Whether there are strengths to choose."""
    return config.smoothing is None or (config.slope_prior is None and not anchored.all())


def _data(system: SkySystem, observations: Observations) -> Data:
    """Return the differences, all of which are trusted."""
    return Data(
        observations,
        taps(observations, system.layout),
        0.0,
        np.ones(len(system.samples)),
        np.ones(len(observations)),
    )


def _settled(tuned: Tuned, config: SolveConfig, *, rough: bool) -> Tuned:
    """Return the solution of the same strengths with settled robust weights.

    What is absurd loses its say before strengths are taken from what is left.
    """
    system, strengths = tuned.solver.system, tuned.strengths
    for _ in range(config.n_robust):
        if tuned.noise == 0.0:
            break
        before, data = tuned.data, _reweighted(tuned, config)
        tuned = _solve(system, data, strengths, tuned, judged=not rough, rough=rough)
        if np.abs(data.trust - before.trust).max(initial=0.0) < _SETTLED:
            break
    return tuned


def _draft(system: SkySystem, strengths: Strengths, data: Data, most: int) -> SkySystem:
    """Return the equations with as many modes as the choice of strengths needs."""
    return _with_modes(system, strengths, data, _SMALLEST_DRAFT, most)


def _whole(system: SkySystem, strengths: Strengths, data: Data) -> SkySystem:
    """Return the equations with all modes that the prior leaves a hundredth of."""
    return _with_modes(system, strengths, data, _SMALLEST, _MOST_WHOLE)


def _with_modes(
    system: SkySystem, strengths: Strengths, data: Data, smallest: float, most: int
) -> SkySystem:
    """Return the equations with the modes of which the prior leaves more than some share."""
    weights, area = _base(system, data), system.layout.pitch**2
    counts = []
    for v, modes in enumerate(system.modes):
        own = weights[system.own(v)]
        if system.rigid[v] or not len(own):
            counts.append(0)
            continue
        limit = float(np.median(own)) * area / (smallest * float(strengths.smoothing[v]))
        n = max(int(np.searchsorted(modes.energies, limit)), _FEWEST_MODES)
        counts.append(min(n + -n % _EVEN, most, len(modes)))
    return system.with_modes(np.array(counts))


def _smoothest(tuned: Tuned) -> Tuned:
    """Strengthen the smoothness as long as that predicts better.

    A likelihood takes curvature for Gaussian. Backgrounds are smooth with a few bumps, which
    make it too weak for the rest; generalised cross-validation, ``Σ w r² / (n − freedom)²``,
    asks for prediction alone (Golub, Heath and Wahba 1979, Technometrics 21, 215).
    """
    scores = [tuned.score]
    for _ in range(_MAX_STRONGER):
        smoothing = np.minimum(_STRONGER * tuned.strengths.smoothing, BOUNDS[1])
        if np.array_equal(smoothing, tuned.strengths.smoothing):
            break
        strengths = replace(tuned.strengths, smoothing=smoothing)
        other = _solve(tuned.solver.system, tuned.data, strengths, tuned, rough=True)
        if other.noise == 0.0 or other.score >= tuned.score:
            break
        tuned = other
        scores.append(tuned.score)
        # Along the strength the score is a valley: a next step as bent as the last two goes up.
        if len(scores) > _FEW and np.diff(scores, 2)[-1] > scores[-2] - scores[-1]:
            break
    return tuned


def _first_strengths(anchored: Plane, config: SolveConfig) -> Strengths:
    slope = _FIRST_RIDGE if config.slope_prior is None else config.slope_prior
    ridge = np.full((len(anchored), TREND), np.inf)
    ridge[:, :PLANE] = np.where(anchored, 0.0, max(slope, BOUNDS[0]))[:, np.newaxis]
    # Where the smoothness is given it is the whole prior. Through narrow overlaps a parabola
    # could grow along a chain.
    if config.smoothing is not None:
        return Strengths(np.full(len(anchored), max(config.smoothing, BOUNDS[0])), ridge)
    ridge[anchored, PLANE:] = _FIRST_CURVATURE
    return Strengths(np.where(anchored, _FIRST_SMOOTHING, _FIRST_SMOOTHING_LOOSE), ridge)


def _base(system: SkySystem, data: Data) -> Array:
    """Return the weight of each sample but for its robust one."""
    out: Array = data.observations.unit / (system.samples.photon + data.systematic)
    return out


def _solve(
    system: SkySystem,
    data: Data,
    strengths: Strengths,
    start: Tuned | None = None,
    *,
    judged: bool = True,
    rough: bool = False,
) -> Tuned:
    weights = _base(system, data) * data.trust
    solver = factorise(system, weights, strengths, None if start is None else start.solver)
    value, theta = data.observations.value, np.zeros(int(system.starts[-1]))
    if start is not None:
        theta = system.moved(start.theta, start.solver.system)

    def needs(theta: Array) -> Array:
        rest = value - apply(data.taps, system.on_nodes(theta))
        return system.samples.needed(rest, data.pair_trust)

    # Samples have one mean box each; what pairs see in their own boxes is corrected for.
    scale = float(np.abs(value).max(initial=0.0))
    needed, small = needs(theta), _SMALL_DRAFT if rough else _SMALL
    for _ in range(_CORRECTIONS):
        change = solver.step(needed, theta)
        theta = theta + change
        needed = needs(theta)
        typical = float(np.abs(needed).mean()) if len(needed) else 0.0
        # What strengths are taken from depends on all modes, not on the one that moves most.
        moved = float(np.sqrt((change**2).mean())) if rough else np.abs(change).max(initial=0.0)
        if moved <= max(_CORRECTED * scale, small * typical):
            break
    return _judged(Tuned(data, solver, theta, needed, 0.0, (), 0.0), traced=judged)


def _judged(tuned: Tuned, *, traced: bool = True) -> Tuned:
    """Return a solution with what is left over and its noise; traced: and its freedom."""
    data, solver, samples = tuned.data, tuned.solver, tuned.solver.system.samples
    weights = solver.weights
    total = samples.of_sites(weights)
    left = tuned.left - (samples.of_sites(weights * tuned.left) / total)[samples.site]
    found: list[Evidence] = []
    if traced:
        found = solver.system.each(lambda v: evidence_of(solver, tuned.theta, v))
    # Huber's second proposal: what is weighted down counts with its limit, not with its size.
    squares = float((weights * data.trust * left**2).sum())
    taken = float((samples.of_sites(weights * data.trust) / total).sum())
    n = float(data.trust.sum()) - taken - sum(e.freedom for e in found)
    scale = float(np.abs(data.observations.value).max(initial=0.0))
    noisy = squares > _NOISE_FREE * scale**2 * float(weights.sum()) and n >= 1.0
    noise = squares / n if noisy else 0.0
    score = noise / n if noisy else 0.0
    return replace(tuned, left=left, noise=noise, evidence=tuple(found), score=score)


def _reweighted(tuned: Tuned, config: SolveConfig) -> Data:
    """Return the data with systematic noise and robust weights from the residuals."""
    data, system = tuned.data, tuned.solver.system
    samples, observations = system.samples, data.observations
    count = samples.of_sites(np.ones(len(samples)))[samples.site]
    free = 1.0 - 1.0 / count
    # Residuals are smaller than errors by what the fit has used up.
    n = float(free.sum())
    lost = min(float(tuned.freedom.sum()) / n, 0.9)
    left = (tuned.left - samples.medians(tuned.left)[samples.site]) / np.sqrt(free)
    excess = robust_scale(left / np.sqrt(1.0 - lost)) ** 2 - float(np.median(samples.photon))
    data = replace(data, systematic=max(excess, 0.0))
    sigma = np.sqrt(samples.photon + data.systematic)
    z = left / sigma
    # A fit that follows the data leaves less than noise, which makes nothing an outlier.
    trust = redescending_weights(z / max(robust_scale(z), _LEAST_SCALE), config.huber)
    rest = observations.value - apply(data.taps, system.on_nodes(tuned.theta))
    needed = samples.needed(rest, data.pair_trust)
    apart = rest - (needed[samples.at_visit] - needed[samples.at_hub])
    spread = np.sqrt(tuned.noise / observations.unit * (observations.photon + 2 * data.systematic))
    pair_trust = redescending_weights(apart / spread, config.huber)
    return replace(data, trust=trust, pair_trust=pair_trust)
