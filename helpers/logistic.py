"""Weighted logistic regression with an L2 penalty, for many strengths of it at once."""

import numpy as np
from scipy.special import softmax


def fit_path(x, target, weights, grid, tolerance=1e-4):
    """Fit x (n, d) to target (n, k), one-hot, for every C of a grid, in scikit-learn's units of C.

    weights: (n,), of the loss and of the standardisation.
    The Hessian is bounded by half the weighted Gram matrix (Boehning 1992), which one
    eigendecomposition makes diagonal for all C: accelerated steps (Nesterov 1983) in that basis
    cost two matrix products. Returns mean, scale (d,), coef (g, d, k), bias (g, k).
    """
    mean = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    scale = np.where(scale > 1e-8 * (np.abs(mean) + 1), scale, 1.0)
    z = (x - mean) / scale
    basis, spectrum = _basis(z * np.sqrt(weights)[:, None])
    # The intercept is one more direction, which the centring makes orthogonal: it has no penalty.
    z = np.column_stack([z @ basis, np.ones(len(z))])
    curve = 0.5 * np.append(spectrum, weights.sum())[:, None]
    free = np.append(np.ones(z.shape[1] - 1), 0)[:, None]
    halves = 2 if target.shape[1] == 2 else 1  # two mirrored columns share one penalty
    fits = [_descend(z, target, weights, curve, halves / C * free, tolerance) for C in grid]
    coef = np.stack([basis @ fit[:-1] for fit in fits])
    return mean, scale, coef, np.stack([fit[-1] for fit in fits])


def _descend(z, target, weights, curve, penalty, tolerance, steps=400):
    """Minimise the penalised loss: coefficients (r + 1, k), the last row being the intercept."""
    coef = ahead = np.zeros((z.shape[1], target.shape[1]))
    momentum = 1.0
    for _ in range(steps):
        residual = (softmax(z @ ahead, axis=1) - target) * weights[:, None]
        gradient = z.T @ residual + penalty * ahead
        new = ahead - gradient / (curve + penalty)
        if np.sum(gradient * (new - coef)) > 0:  # restart (O'Donoghue and Candes 2015)
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - coef)
        moved, size = np.abs(new - coef).max(), np.abs(new).max()
        coef, momentum = new, following
        if moved <= tolerance * size:
            break
    return coef


def _basis(z):
    """Directions (d, r) in which the Gram matrix of z (n, d) is diagonal, and its values (r,)."""
    n, d = z.shape
    values, vectors = np.linalg.eigh(z.T @ z if d <= n else z @ z.T)
    keep = values > max(values[-1], 0) * 1e-12
    if not keep.any():
        return np.zeros((d, 1)), np.zeros(1)
    values, vectors = values[keep], vectors[:, keep]
    return (vectors if d <= n else z.T @ vectors / np.sqrt(values)), values
