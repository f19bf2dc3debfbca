"""Weights, thresholds and scores from out-of-fold maps."""
