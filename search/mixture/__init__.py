"""Mixtures of groups: within members of a run, and searched for by a swarm of small runs."""
