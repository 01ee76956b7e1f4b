"""`python -m discovery`: see service.py.

gevent replaces the blocking parts of the standard library before anything else is imported; nothing but this file does,
so that importing discovery in another process changes nothing there.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from discovery.service import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
