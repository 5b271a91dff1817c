"""`python -m ldm_ort` is the command `ldm-ort`."""

import sys

from ._command import main

sys.exit(main())
