"""An Interledger connector: ILPv4 over BTP/2.0, on trio.

The layers, from the outside in; each imports only what stands to its right
(checked by import-linter, see pyproject.toml):

    cli → node → config → links · receiver · sender · telemetry → core → protocol

`limits`, `errors` and `ids` stand below all of them. `protocol` and `core` are
pure: no trio, no sockets, no clock, no randomness, no files.
"""

__version__ = "0.1.0"
