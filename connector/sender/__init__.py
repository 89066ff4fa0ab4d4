"""Payments that start here: a STREAM sender over any uplink that takes ILP packets."""
