"""Cluster block storage for Linux hosts."""

__version__ = "0.2.0"
