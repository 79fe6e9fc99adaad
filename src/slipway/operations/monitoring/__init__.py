"""Monitoring by Prometheus, Alertmanager and Grafana: their files, made of the settings of a gateway."""
