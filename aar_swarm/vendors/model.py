"""The world that vendors try to learn, and their models: small neural networks in numpy. Pure functions.

An asset has `FEATURES` fundamentals, z ~ N(0, I) in standard units; as published (raw) one is 1 + CV·z. Its true log
value is a nonlinear function of them (a sum of tanh units over neighbouring pairs), of standard deviation
LOG_VALUE_SD over assets. A vendor trains one hidden layer on a sample of assets that it sees through noise of its own:
it reads only `features_seen` of the fundamentals, and values are noisy.

Similarity s mixes what vendors have in common with what is their own, in everything that a model comes from (which
assets, label noise, which features, initial weights): √s·common + √(1−s)·own, so that the variance of each stays as it
is. With s = 1 all models are one model; what s below 1 gives is measured (`error_correlations`), not assumed.

Randomness is passed in; a vendor's stream must depend on the vendor alone, the common one on nothing.
"""

import math
from typing import NamedTuple

import numpy as np

FEATURES = 8
CV = 0.2
"""Coefficient of variation of a fundamental over assets: its level is about 1, whatever its unit."""
LOG_VALUE_SD = 0.3
LABEL_NOISE_SD = 0.03
"""Of a training value, in log units."""
ASSETS = 1000
HIDDEN = 8
STEPS = 300
_LEARNING_RATE = 0.02
_WEIGHT_DECAY = 0.03
_BETAS = (0.9, 0.999)  # of Adam (Kingma and Ba 2015)
_BPS = 10_000
_LARGEST_FACTOR = 1000.0
_GRID, _BISECTIONS = 1000, 50

Array = np.ndarray


class World(NamedTuple):
    """The true log value of an asset with fundamentals z: Σ scale·tanh(z·directions + offsets), centred."""

    directions: Array  # [FEATURES, units]
    offsets: Array  # [units]
    scales: Array  # [units]
    asset: Array  # [FEATURES]: the fundamentals of the asset that is traded


class Model(NamedTuple):
    """tanh network with one hidden layer; seen: which features it reads (the others are 0, the mean, to it)."""

    seen: Array  # bool[FEATURES]
    hidden_weights: Array
    hidden_offsets: Array
    output_weights: Array
    output_offset: float


def make_world(rng: np.random.Generator) -> World:
    """Every fundamental matters alike: unit j reads fundamental j, and its neighbour with a third of the weight."""
    directions = np.zeros((FEATURES, FEATURES))
    for unit in range(FEATURES):
        directions[unit, unit] = 1.0
        directions[(unit + 1) % FEATURES, unit] = rng.choice((-1, 1)) / 3
    offsets = rng.uniform(-0.5, 0.5, FEATURES)
    world = World(directions, offsets, rng.uniform(0.7, 1.3, FEATURES), np.clip(rng.normal(0, 1, FEATURES), -1, 1))
    spread = float(np.std(true_log_value(world, rng.normal(0, 1, (4096, FEATURES)))))
    return world._replace(scales=world.scales * LOG_VALUE_SD / spread)


def true_log_value(world: World, z: Array) -> Array:
    """z: [assets, FEATURES] → [assets]."""
    found: Array = np.tanh(z @ world.directions + world.offsets) @ world.scales
    return found


def train(
    world: World, common: np.random.Generator, own: np.random.Generator, similarity: float, features_seen: int
) -> Model:
    """A vendor's model: full-batch Adam on mean squared error. common: a fresh stream, the same for every vendor."""

    def mixed(*shape: int) -> Array:
        shared, mine = common.normal(0, 1, shape), own.normal(0, 1, shape)
        found: Array = math.sqrt(similarity) * shared + math.sqrt(1 - similarity) * mine
        return found

    liking = mixed(FEATURES)
    seen = np.zeros(FEATURES, bool)
    seen[np.argsort(-liking)[:features_seen]] = True
    z = mixed(ASSETS, FEATURES)
    labels = true_log_value(world, z) + LABEL_NOISE_SD * mixed(ASSETS)
    mean = float(labels.mean())
    weights = [mixed(FEATURES, HIDDEN) / math.sqrt(features_seen), mixed(HIDDEN) / 2, mixed(HIDDEN) / (2 * HIDDEN)]
    z = z * seen
    labels = labels - mean
    first = [np.zeros_like(weight) for weight in weights]
    second = [np.zeros_like(weight) for weight in weights]
    for step in range(1, STEPS + 1):
        hidden = np.tanh(z @ weights[0] + weights[1])
        slope = 2 * (hidden @ weights[2] - labels) / ASSETS
        back = np.outer(slope, weights[2]) * (1 - hidden**2)
        gradients = [z.T @ back, back.sum(axis=0), hidden.T @ slope]
        for at, gradient in enumerate(gradients):
            first[at] = _BETAS[0] * first[at] + (1 - _BETAS[0]) * gradient
            second[at] = _BETAS[1] * second[at] + (1 - _BETAS[1]) * gradient**2
            corrected = first[at] / (1 - _BETAS[0] ** step)
            scale = np.sqrt(second[at] / (1 - _BETAS[1] ** step)) + 1e-8
            weights[at] = weights[at] - _LEARNING_RATE * (corrected / scale + _WEIGHT_DECAY * weights[at])
    return Model(seen, weights[0], weights[1], weights[2], mean)


def log_value(model: Model, z: Array) -> Array:
    """The model's forward pass. z: [assets, FEATURES] → [assets]."""
    hidden = np.tanh((z * model.seen) @ model.hidden_weights + model.hidden_offsets)
    found: Array = hidden @ model.output_weights + model.output_offset
    return found


def mis_scaled(z: Array, feature: int, factor: float) -> Array:
    """What a pipeline with a unit error delivers: the raw fundamental times the factor, then standardised as ever."""
    found: Array = z.copy()
    found[..., feature] = (factor * (1 + CV * z[..., feature]) - 1) / CV
    return found


def fault_effects_bps(model: Model, asset: Array, feature: int, factors: Array) -> Array:
    """By how much a fault of each factor raises this model's valuation of the asset."""
    inputs = np.stack([asset, *(mis_scaled(asset, feature, factor) for factor in factors)])
    found = log_value(model, inputs)
    effects: Array = np.expm1(found[1:] - found[0]) * _BPS
    return effects


def calibrate_fault(model: Model, asset: Array, bps: float) -> tuple[int, float] | None:
    """The smallest unit error that raises the valuation by bps: (feature, factor), or None if none does.

    Searched over all features that the model reads, factors from 1/1000 to 1000: the first crossing on a grid of the
    logarithm, then bisection.
    """
    best: tuple[int, float] | None = None
    for feature in map(int, np.flatnonzero(model.seen)):
        for sign in (1, -1):
            grid = np.linspace(0, math.log(_LARGEST_FACTOR), _GRID)
            reached = fault_effects_bps(model, asset, feature, np.exp(sign * grid)) >= bps
            if not reached.any():
                continue
            crossing = max(1, int(np.argmax(reached)))
            low, high = float(grid[crossing - 1]), float(grid[crossing])
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                enough = fault_effects_bps(model, asset, feature, np.exp([sign * middle]))[0] >= bps
                low, high = (low, middle) if enough else (middle, high)
            if best is None or high < abs(math.log(best[1])):
                best = feature, math.exp(sign * high)
    return best


def errors(world: World, models: list[Model], z: Array) -> Array:
    """What each model gets wrong on a test set: [models, assets], in log units."""
    truth = true_log_value(world, z)
    return np.stack([log_value(model, z) - truth for model in models])


def error_correlations(world: World, models: list[Model], z: Array) -> Array:
    """[models, models]: how alike the models err: the measured similarity."""
    return np.atleast_2d(np.corrcoef(errors(world, models, z)))


def effective_vendors(shares: Array) -> float:
    """1 / HHI: of how many equal vendors the concentration would be the same."""
    return float(1 / np.sum(shares**2))


def effective_models(shares: Array, correlations: Array) -> float:
    """1 / Σ wᵢ wⱼ ρᵢⱼ: of how many equal vendors with independent errors the average would err as much."""
    return float(1 / (shares @ correlations @ shares))
