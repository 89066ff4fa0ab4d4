"""Durable money: the journal that is written ahead, and the ledger it is posted to."""
