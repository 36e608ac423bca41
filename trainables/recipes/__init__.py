"""Recipes that thin out or round what a network computes with."""
