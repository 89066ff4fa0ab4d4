"""The configuration of a node: TOML into Structs, checked before anything starts.

`schema` says what there is, `load` reads a file into it, `check` finds what
types cannot say. The ways in are `load_file` and `load_files`.
"""

from connector.config.load import load_file as load_file
from connector.config.load import load_files as load_files
from connector.config.schema import NodeConfig as NodeConfig
