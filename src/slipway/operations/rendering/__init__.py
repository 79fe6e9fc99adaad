"""Deployments as files: for Kubernetes, KServe, compose and systemd, and what is wrong with such files."""
