"""Runs as Ray jobs, on Kubernetes, and watched from outside."""
