"""`python -m helpers.runner`."""

import sys

from helpers.runner.series import main

sys.exit(main())
