"""Envoy in front of one or two tritonservers: TLS, keys, rates, and only the requests that a classifier needs."""
