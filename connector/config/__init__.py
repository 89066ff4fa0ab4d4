"""The configuration of a node: TOML into Structs, checked before anything starts.

`schema` says what there is, `load` reads a file into it, `check` finds what
types cannot say. The only way in is `load_file`.
"""

from connector.config.load import load_file as load_file
from connector.config.schema import NodeConfig as NodeConfig
