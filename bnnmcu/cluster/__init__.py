"""Campaigns on many cores, machines and boards, by Dask distributed (docs/scale.md)."""
