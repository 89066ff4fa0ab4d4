"""Payments that end at this node: the STREAM receiver behind local accounts, and SPSP."""
