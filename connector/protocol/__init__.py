"""Bytes ↔ values: every wire format, pure and exact.

Nothing here reads a clock, a socket or a random source. Decoders are strict
and raise `RemoteProtocolError` for anything that is not the format, never
another exception; encoders write canonical bytes or raise `LocalProtocolError`.
"""
