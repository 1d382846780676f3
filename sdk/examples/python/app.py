"""Two samples in one program: a greeter that counts, and an update of several systems that never repeats a done part.

python -m hypercorn --bind 127.0.0.1:9080 app:app
"""

import restate
from greeter import greeter
from profile_updater import profile_updater

app = restate.app([greeter, profile_updater])
