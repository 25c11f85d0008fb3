"""Learned explanations of image classifiers: the Explainer, other attribution methods, and their evaluation."""
