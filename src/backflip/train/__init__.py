"""Advantage → loss → update: one file per loop, each written out in full."""
