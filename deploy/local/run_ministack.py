"""MiniStack with one thing changed: `PutEvents` takes sources that begin with `aws.`.

It refuses them, as AWS does. But CloudTrail's way onto the bus is not emulated, so records have to be put on it as if they came from
there. MiniStack's own emitters pass a flag for that; here it is the default.
"""

import sys

from ministack import app
from ministack.services import eventbridge


def main() -> None:
    """Runs the emulator in this process."""
    put_events = eventbridge._put_events
    if put_events.__defaults__ != (False,):
        sys.exit("this MiniStack puts events in another way; see deploy/local/run_ministack.py")
    put_events.__defaults__ = (True,)
    app.main()


if __name__ == "__main__":
    main()
