"""Alphabets, design spaces, constraints, readings, bundles and errors: what every other room speaks of."""
