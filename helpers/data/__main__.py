"""`python -m helpers.data DIR`: compare a folder with the database."""

import sys

from helpers.data.verify import main

sys.exit(main())
