"""`python -m hpcsft.quickstart FOLDER`."""

import sys

from hpcsft.errors import report_errors
from hpcsft.quickstart.prepare import main

if __name__ == "__main__":
    sys.exit(report_errors(main))
