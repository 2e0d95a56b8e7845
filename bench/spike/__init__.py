"""Measurements that decided the shape of the tables; see docs/decisions."""
