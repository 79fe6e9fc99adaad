"""Deployments as files for Kubernetes, KServe, compose and systemd, and checks of such files."""
