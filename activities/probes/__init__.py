"""Probes of a worker: what `/healthz` and `/readyz` answer, and the looks behind them."""
