"""How often innerloop calls an arm better or worse that is neither.

    python benchmarks/statistics.py --output benchmarks/results/statistics.json    # half a minute

What is simulated is in nulls.py. This file hides the standard library's module of its name from every script beside it,
so whoever imports it is given that one.
"""

import sys
import sysconfig
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if __name__ == "__main__":
    from nulls import main

    main()
else:
    spec = spec_from_file_location(__name__, Path(sysconfig.get_path("stdlib"), "statistics.py"))
    assert spec
    assert spec.loader
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
