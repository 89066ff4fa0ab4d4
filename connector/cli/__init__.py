"""The command line: thin commands over the rooms that do the work.

Exit status: 0 done, 1 an error that the message explains, 2 wrong usage, 70 a
bug (EX_SOFTWARE of sysexits.h; please report it), 78 a configuration that
cannot be used (EX_CONFIG), 130 stopped at once by a second signal.
"""

import sys

from cyclopts import App

from connector import __version__
from connector.cli import accounts, config, ledger, packet
from connector.cli.doctor import doctor
from connector.cli.pay import pay
from connector.cli.ping import ping
from connector.cli.run import run
from connector.errors import ConfigError, ConnectorError

_EX_CONFIG = 78

app = App(
    name="connector",
    help="An Interledger connector: routes payments between peers.",
    version=__version__,
)
app.command(run, sort_key=1)
app.command(pay, sort_key=2)
app.command(ping, sort_key=3)
app.command(accounts.app)
app.command(doctor, sort_key=5)
app.command(ledger.app)
app.command(packet.app)
app.command(config.app)


def main() -> None:
    """Run the command that the arguments name, and exit."""
    try:
        status = app(result_action="return_value")
    except ConfigError as error:
        print(f"connector: {error}", file=sys.stderr)
        sys.exit(_EX_CONFIG)
    except ConnectorError as error:
        print(f"connector: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
